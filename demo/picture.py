"""The image with which the demo ends: the same prompts drawn by the model before, without and with ground truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL = 128
"""Pixels of a drawing's side."""
FRAME = 4
LEFT = 190
TOP = 96
GAP = 22
"""Between the concept's columns and the others."""
INK = (34, 34, 40)
FAINT = (110, 110, 118)
RIGHT = (30, 150, 70)
WRONG = (206, 44, 44)

Drawing = NDArray[np.uint8]


def comparison(
    title: str,
    prompts: Sequence[str],
    rows: Sequence[tuple[str, str, Sequence[Drawing], Sequence[bool]]],
    concepts: int,
) -> Image.Image:
    """A table of drawings: a column a prompt, a row a model; a green frame where the judge finds the prompt drawn.

    Args:
        rows: of each model its name, a line about it, and for each prompt the drawing and whether it is right.
        concepts: how many of the prompts, the first ones, are of the concept; a gap sets them apart.
    """
    step = CELL + 2 * FRAME + 6
    size = (LEFT + step * len(prompts) + GAP + 10, TOP + step * len(rows) + 12)
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((12, 8), title, INK, _font(20))
    places = [LEFT + step * column + (GAP if column >= concepts else 0) for column in range(len(prompts))]
    for x, prompt in zip(places, prompts, strict=True):
        lines = _wrapped(prompt, pen, step - 8)
        pen.multiline_text((x + FRAME, TOP - 6), "\n".join(lines), INK, _font(12), anchor="ld", spacing=2)
    for row, (name, line, drawings, right) in enumerate(rows):
        y = TOP + step * row
        pen.text((12, y + 34), name, INK, _font(18))
        pen.multiline_text((12, y + 60), "\n".join(_wrapped(line, pen, LEFT - 24)), FAINT, _font(12), spacing=2)
        for x, drawing, good in zip(places, drawings, right, strict=True):
            canvas.paste(_framed(drawing, good, CELL), (x, y))
    return canvas


def sheet(drawings: Sequence[Drawing], right: Sequence[bool], columns: int = 12, side: int = 64) -> Image.Image:
    """All drawings in reading order, each in a frame that is green where it is right and red where it is wrong."""
    step = side + 2 * FRAME + 2
    canvas = Image.new("RGB", (step * columns, step * -(-len(drawings) // columns)), "white")
    for place, (drawing, good) in enumerate(zip(drawings, right, strict=True)):
        canvas.paste(_framed(drawing, good, side), (place % columns * step, place // columns * step))
    return canvas


def _framed(drawing: Drawing, good: bool, side: int) -> Image.Image:
    framed = Image.new("RGB", (side + 2 * FRAME, side + 2 * FRAME), RIGHT if good else WRONG)
    framed.paste(Image.fromarray(drawing).resize((side, side), Image.Resampling.LANCZOS), (FRAME, FRAME))
    return framed


def _wrapped(text: str, pen: ImageDraw.ImageDraw, width: int) -> list[str]:
    """The text in lines of at most `width` pixels; a word that is wider stands alone."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and pen.textlength(longer, _font(12)) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
