"""Draws the demo's last image: the same prompts by the model before training, without and with ground truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL = 128
"""Side of a drawing, in pixels."""
FRAME = 4
LEFT = 190
TOP = 96
GAP = 22
"""Pixels between the concept's columns and the others."""
INK = (34, 34, 40)
FAINT = (110, 110, 118)
RIGHT = (30, 150, 70)
WRONG = (206, 44, 44)

Drawing = NDArray[np.uint8]


def draw_comparison(
    title: str,
    prompts: Sequence[str],
    rows: Sequence[tuple[str, str, Sequence[Drawing], Sequence[bool]]],
    concepts: int,
) -> Image.Image:
    """Draws a table of drawings: a column per prompt, a row per model, and a green frame around each right drawing.

    Args:
        title: the line above the table.
        prompts: the columns' headings.
        rows: for each model its name, a line about it, and for each prompt the drawing and whether it is right.
        concepts: number of prompts, the first ones, that are of the concept; a gap follows them.
    """
    step = CELL + 2 * FRAME + 6
    size = (LEFT + step * len(prompts) + GAP + 10, TOP + step * len(rows) + 12)
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((12, 8), title, INK, _font(20))
    offsets = [LEFT + step * column + (GAP if column >= concepts else 0) for column in range(len(prompts))]
    for x, prompt in zip(offsets, prompts, strict=True):
        lines = _wrapped(prompt, pen, step - 8)
        pen.multiline_text((x + FRAME, TOP - 6), "\n".join(lines), INK, _font(12), anchor="ld", spacing=2)
    for row, (name, line, drawings, right) in enumerate(rows):
        y = TOP + step * row
        pen.text((12, y + 34), name, INK, _font(18))
        pen.multiline_text((12, y + 60), "\n".join(_wrapped(line, pen, LEFT - 24)), FAINT, _font(12), spacing=2)
        for x, drawing, is_right in zip(offsets, drawings, right, strict=True):
            canvas.paste(_framed(drawing, is_right, CELL), (x, y))
    return canvas


def draw_sheet(drawings: Sequence[Drawing], right: Sequence[bool], columns: int = 12, side: int = 64) -> Image.Image:
    """Draws all drawings in reading order, with green frames around right ones and red frames around wrong ones."""
    step = side + 2 * FRAME + 2
    canvas = Image.new("RGB", (step * columns, step * -(-len(drawings) // columns)), "white")
    for number, (drawing, is_right) in enumerate(zip(drawings, right, strict=True)):
        canvas.paste(_framed(drawing, is_right, side), (number % columns * step, number // columns * step))
    return canvas


def _framed(drawing: Drawing, is_right: bool, side: int) -> Image.Image:
    framed = Image.new("RGB", (side + 2 * FRAME, side + 2 * FRAME), RIGHT if is_right else WRONG)
    framed.paste(Image.fromarray(drawing).resize((side, side), Image.Resampling.LANCZOS), (FRAME, FRAME))
    return framed


def _wrapped(text: str, pen: ImageDraw.ImageDraw, width: int) -> list[str]:
    """The text in lines of at most `width` pixels; a wider word has a line of its own."""
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
