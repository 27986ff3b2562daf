"""The files of samples: images side by side with their headings, and grids of several such files. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit
from dreamloom.base.images.fonts import drawable, line_height, load_font, wrap

if TYPE_CHECKING:
    from dreamloom.train.evaluate.drawings import Drawing

GRID_ROWS = 16
"""Most rows of a grid."""
GRID_LABEL = 72
"""Least width of the label at the left of each row of a grid, in pixels."""
_FONT_SIZE, _HEADING_LINES, _LABEL_LINES = 12, 6, 4
_WIDEST_LABEL = 160

_SOFTWARE = "dreamloom samples"

Cells = Sequence[Image.Image | None]
"""The images of a row; None: an empty place."""


@dataclass(frozen=True)
class Column:
    """A column of a file of samples."""

    heading: str
    width: int
    """Pixels."""
    key: str = ""
    """Of its drawing; empty in files of older releases."""
    prompt: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """What columns of several files have in common that show the same."""
        return self.heading, self.key


def column_of(drawing: "Drawing", image: Image.Image) -> Column:
    """Returns the column of a drawing."""
    return Column(drawing.heading, image.width, drawing.key, drawing.prompt)


def write_samples(path: Path, columns: Sequence[Column], images: Sequence[Image.Image]) -> None:
    """Writes a PNG with the images side by side.

    The file holds the prompts in its text chunk "prompts", and headings, widths and keys of its columns in "columns".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = PngInfo()
    metadata.add_itxt("prompts", json.dumps([column.prompt for column in columns], ensure_ascii=False))
    listed = [(column.heading, column.width, column.key) for column in columns]
    metadata.add_itxt("columns", json.dumps(listed, ensure_ascii=False))
    with commit(path) as temporary:
        join_side_by_side(images).save(temporary, format="PNG", pnginfo=metadata)


def read_samples(path: Path) -> tuple[list[Column], list[Image.Image]]:
    """Reads the columns of a file of samples, and the image of each; one without a heading if the file names none."""
    columns = read_columns(path)
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    images, left = [], 0
    for column in columns:
        images.append(image.crop((left, 0, left + column.width, image.height)))
        left += column.width
    return columns, images


def list_samples(folder: Path) -> list[Path]:
    """Returns the files of samples in a folder, the first point of the run first."""
    return sorted(file for file in folder.glob("[0-9]*.png") if file.stem.isdigit())


def is_drawn(columns: Sequence[Column], drawing: "Drawing") -> bool:
    """Tells whether a drawing stands in columns; of those of older releases, by the heading alone."""
    return any(column.key == drawing.key if column.key else column.heading == drawing.heading for column in columns)


def read_columns(path: Path) -> list[Column]:
    """Reads the columns of a file of samples: one without a heading if it names none; nothing if it is missing."""
    if not path.is_file():
        return []
    with Image.open(path) as image:
        stored, prompts = (json.loads(image.info.get(name, "[]")) for name in ("columns", "prompts"))
        columns = [
            Column(str(heading), int(width), str(key[0]) if key else "", str(prompt))
            for (heading, width, *key), prompt in zip(stored, prompts, strict=False)
        ]
        return columns or [Column("", image.width)]


def draw_grid(samples: Path, path: Path) -> None:
    """Writes a PNG with a row for each of a run's samples that show the newest prompts, labeled with the images seen.

    Above each column stands its prompt; a place is empty where the prompt was not drawn. If there are more than
    GRID_ROWS rows, the grid shows that many, evenly spaced, including the first and the last.
    """
    files = list_samples(samples)
    newest = read_columns(files[-1])
    wanted = {column.identity for column in newest}
    files = [file for file in files if wanted & {column.identity for column in read_columns(file)}]
    count = min(len(files), GRID_ROWS)
    shown = [files[index * (len(files) - 1) // max(1, count - 1)] for index in range(count)]
    rows = {f"{int(file.stem):,}": pick_cells(file, newest) for file in shown}
    with commit(path) as temporary:
        image_grid([column.heading for column in newest], rows).save(temporary, format="PNG")


def pick_cells(file: Path, columns: Sequence[Column]) -> Cells:
    """Returns the images of a file of samples in the order of columns; None where it has none of one."""
    left: dict[tuple[str, str], list[Image.Image]] = {}
    for column, image in zip(*read_samples(file), strict=True):
        left.setdefault(column.identity, []).append(image)
    return [images.pop(0) if (images := left.get(column.identity)) else None for column in columns]


def image_grid(headings: Sequence[str], rows: Mapping[str, Cells]) -> Image.Image:
    """Draws a table of images: headings above the columns, a label at the left of each row.

    Args:
        headings: one for each column.
        rows: label → the images, one for each column.
    """
    headings, rows = list(map(drawable, headings)), {drawable(label): cells for label, cells in rows.items()}
    font = load_font(_FONT_SIZE, "".join([*headings, *rows]))
    widths = [
        max((image.width for image in column if image is not None), default=GRID_LABEL)
        for column in zip(*rows.values(), strict=True)
    ]
    heights = [max((image.height for image in cells if image is not None), default=0) for cells in rows.values()]
    labels = [wrap(label, font, _WIDEST_LABEL - 8, _LABEL_LINES) for label in rows]
    left = max([GRID_LABEL, *(round(font.getlength(line)) + 8 for lines in labels for line in lines)])
    wrapped = [wrap(heading, font, width - 8, _HEADING_LINES) for heading, width in zip(headings, widths, strict=True)]
    top = max(map(len, wrapped), default=0) * line_height(font) + (8 if any(wrapped) else 0)
    grid = Image.new("RGB", (left + sum(widths), top + sum(heights)), "white")
    pen = ImageDraw.Draw(grid)
    for place, lines in enumerate(wrapped):
        pen.text((left + sum(widths[:place]) + 4, 4), "\n".join(lines), fill="black", font=font)
    for label, cells, height in zip(labels, rows.values(), heights, strict=True):
        pen.text((4, top + 4), "\n".join(label), fill="black", font=font)
        for place, image in enumerate(cells):
            if image is not None:
                grid.paste(image, (left + sum(widths[:place]), top))
        top += height
    return grid


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Writes a PNG where the user named a file, marked as ours.

    Raises:
        UserError: the file exists and is none of ours.
    """
    refuse_foreign(path)
    metadata = PngInfo()
    metadata.add_text("Software", _SOFTWARE)
    with commit(path) as temporary:
        sheet.save(temporary, format="PNG", pnginfo=metadata)


def refuse_foreign(path: Path) -> None:
    """Refuses to replace a file that `save_sheet` did not write.

    Raises:
        UserError: the file exists and is none of ours.
    """
    if not path.exists():
        return
    try:
        with Image.open(path) as image:
            is_ours = image.info.get("Software") == _SOFTWARE
    except OSError:
        is_ours = False
    if not is_ours:
        raise UserError(f"{path} exists and is no image of this command; name another file with --output.")


def join_side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Joins images into a row, as high as the highest."""
    row = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width
    return row
