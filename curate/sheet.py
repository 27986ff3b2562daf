"""Contact sheets: images in a grid, each with its caption below."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from dreamloom.base.images.fonts import drawable, line_height, load_font, wrap
from dreamloom.base.images.pixels import ImageError, decode

_PAPER, _FRAME, _INK, _FAINT = (255, 255, 255), (236, 236, 236), (30, 30, 30), (150, 60, 50)
_LINES = 3
_GAP = 8
"""Pixels between cells."""


def contact_sheet(
    images: Sequence[tuple[Path | bytes, str]], columns: int = 8, side: int = 192, heading: str = ""
) -> Image.Image:
    """Draws images, each whole and upright in a square, with at most three lines of its caption below.

    A file that can't be decoded gets a square with the reason. Letters that no font of this machine has (Chinese,
    Japanese, Korean) are told by number.

    Args:
        images: Files, or the bytes of files, and their captions, in reading order.
        columns: Images per row, at least 1; fewer where there are fewer images.
        side: Pixels of the squares.
        heading: What stands above them.

    Returns:
        An RGB image; without images, one empty row.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    text_size = max(10, side // 15)
    font = load_font(text_size)
    line = line_height(font)
    top_of_images = _GAP + (line + _GAP if heading else 0)
    cell = (side + _GAP, side + _LINES * line + 2 * _GAP)
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + top_of_images), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), drawable(heading), _INK, load_font(text_size, heading))
    for number, (source, caption) in enumerate(images):
        left, top = _GAP + number % columns * cell[0], top_of_images + number // columns * cell[1]
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=_FRAME)
        try:
            image = _fit(source, side)
            sheet.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
        except ImageError as error:
            draw.text((left + side / 2, top + side / 2), error.reason, _FAINT, font, anchor="mm")
        letters = load_font(text_size, caption)
        for at, text in enumerate(wrap(drawable(caption), letters, side, _LINES)):
            draw.text((left, top + side + _GAP // 2 + at * line), text, _INK, letters)
    return sheet


def _fit(source: Path | bytes, side: int) -> Image.Image:
    """Decodes an image and scales it, up or down, so that its longer side fits the square."""
    image = decode(source, at_least=side)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
