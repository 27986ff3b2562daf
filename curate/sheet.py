"""Contact sheets: images in a grid, each with its caption below."""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dreamloom.base.errors import UserError
from dreamloom.base.pixels import ImageError, decode

_PAPER, _FRAME, _INK, _FAINT = (255, 255, 255), (236, 236, 236), (30, 30, 30), (150, 60, 50)
_LINES = 3
_GAP = 8
"""Pixels between cells."""


def contact_sheet(images: Sequence[tuple[Path, str]], columns: int = 8, side: int = 192) -> Image.Image:
    """Draws images, each whole and upright in a square, with at most three lines of its caption below.

    A file that can't be decoded gets a square with the reason. Characters that the font lacks (Chinese, Japanese) are
    boxes.

    Args:
        images: Files and their captions, in reading order.
        columns: Images per row, at least 1; fewer where there are fewer images.
        side: Pixels of the squares.

    Returns:
        An RGB image; without images, one empty row.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    font = _font(max(10, side // 15))
    line = _line_height(font)
    cell = (side + _GAP, side + _LINES * line + 2 * _GAP)
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (path, caption) in enumerate(images):
        left, top = _GAP + number % columns * cell[0], _GAP + number // columns * cell[1]
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=_FRAME)
        try:
            image = _fit(path, side)
            sheet.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
        except ImageError as error:
            draw.text((left + side / 2, top + side / 2), error.reason, _FAINT, font, anchor="mm")
        for at, text in enumerate(wrap(caption, font, side)):
            draw.text((left, top + side + _GAP // 2 + at * line), text, _INK, font)
    return sheet


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float, lines: int = _LINES) -> list[str]:
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


def _fit(path: Path, side: int) -> Image.Image:
    """Decodes an image and scales it, up or down, so that its longer side fits the square."""
    image = decode(path, at_least=side)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans, which comes with matplotlib; Pillow's own font has only the letters of English."""
    matplotlib = importlib.util.find_spec("matplotlib")  # found, not imported: that takes a second
    if matplotlib is None or matplotlib.origin is None:
        raise UserError("matplotlib is not installed; install dreamloom with its dependencies.")
    return ImageFont.truetype(Path(matplotlib.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", size)


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent + 1
