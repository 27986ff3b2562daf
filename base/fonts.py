"""Text on images: a font for many scripts, and lines that fit."""

import importlib.util
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from dreamloom.base.errors import UserError


@lru_cache(maxsize=4)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans, which comes with matplotlib; Pillow's own font has only the letters of English."""
    matplotlib = importlib.util.find_spec("matplotlib")  # found, not imported: that takes a second
    if matplotlib is None or matplotlib.origin is None:
        raise UserError("matplotlib is not installed; install dreamloom with its dependencies.")
    return ImageFont.truetype(Path(matplotlib.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", size)


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
