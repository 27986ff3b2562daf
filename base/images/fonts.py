"""Text on images: a font for many scripts, and lines that fit."""

import importlib.util
import re
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from dreamloom.base.errors import UserError
from dreamloom.base.text import shows_nothing

_CJK_FOLDERS: tuple[str, ...] = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts", "~/Library/Fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "C:/Windows/Fonts"),
)
_CJK_NAMES = (
    r"(notosans|notosanscjk|notoserifcjk|sourcehan\w*)[-_]?(cjk|sc|jp|kr|tc)|wqy|droidsansfallback|unifont|pingfang|"
    r"hiragino|msyh|simsun|yugoth|arialuni"
)
_CJK = "[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"


def load_font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """Returns a font that has the letters of a text, as far as this machine has one.

    That is DejaVu Sans, which comes with matplotlib; Pillow's own font has only the letters of English. For Chinese,
    Japanese and Korean it is a font of the system.

    Args:
        size: in pixels.
        text: what is to be written; `drawable` says what to write where no font has its letters.
    """
    file = _cjk_font() if re.search(_CJK, text) else None
    return _load(file or _dejavu(), size)


def drawable(text: str) -> str:
    """Returns a text as it can be written: letters that its font does not have are told by number, not boxes."""
    file = str(load_font(_LOOKED_AT, text).path)
    return "".join(letter if _has(file, letter) else f"\\u{ord(letter):04x} " for letter in text)


_LOOKED_AT = 32
"""The size at which letters are told from the box that a font draws for what it lacks."""
_NOWHERE = "\U0010ffff"
"""A character that no font has."""


@lru_cache(maxsize=4096)
def _has(file: str, letter: str) -> bool:
    if letter.isascii() or shows_nothing(letter):
        return True
    font = ImageFont.truetype(
        file, _LOOKED_AT, layout_engine=ImageFont.Layout.BASIC
    )  # else marks get a letter to be on
    drawn, box = font.getmask(letter), font.getmask(_NOWHERE)
    return drawn.size != box.size or bytes(drawn) != bytes(box)


@lru_cache(maxsize=8)
def _load(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@lru_cache(maxsize=1)
def _dejavu() -> Path:
    matplotlib = importlib.util.find_spec("matplotlib")  # found, not imported: that takes a second
    if matplotlib is None or matplotlib.origin is None:
        raise UserError("matplotlib is not installed; install dreamloom with its dependencies.")
    return Path(matplotlib.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"


@lru_cache(maxsize=1)
def _cjk_font() -> Path | None:
    """Finds a font of the system with Chinese, Japanese or Korean letters; None where there is none."""
    for folder in map(Path, _CJK_FOLDERS):
        fonts = folder.expanduser().rglob("*.[to]t[fc]") if folder.expanduser().is_dir() else ()
        found = sorted(file for file in fonts if re.search(_CJK_NAMES, file.name, re.IGNORECASE))
        if found:
            return found[0]
    return None


def line_height(font: ImageFont.FreeTypeFont) -> int:
    """Returns the height of a line, in pixels."""
    ascent, descent = font.getmetrics()
    return ascent + descent + 1


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """Wraps text into at most `lines` lines of at most `width` pixels, at spaces where possible; cut text ends in …."""
    words, wrapped = text.split(), [""]
    while words:
        word = words.pop(0)
        longer = f"{wrapped[-1]} {word}".lstrip()
        if font.getlength(longer) <= width:
            wrapped[-1] = longer
        elif wrapped[-1]:
            words.insert(0, word)
            if len(wrapped) == lines:
                return [*wrapped[:-1], _shorten(f"{wrapped[-1]} {word}", font, width)]
            wrapped.append("")
        else:  # a word that is wider than a line, or a script without spaces
            head = _head(word, font, width)
            wrapped[-1] = head
            words.insert(0, word[len(head) :])
    return wrapped if wrapped[-1] else wrapped[:-1]


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    return _head(text, font, width - font.getlength("…")).rstrip() + "…"


def _head(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Returns as much of the beginning of a text as fits, at least one character."""
    count = 1
    while count < len(text) and font.getlength(text[: count + 1]) <= width:
        count += 1
    return text[:count]
