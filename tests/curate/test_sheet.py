"""A contact sheet shows each image whole, upright and in its own proportions, over its caption."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from dreamloom.base.images.fonts import wrap
from dreamloom.curate.sheet import contact_sheet

FRAME = (236, 236, 236)


def plain(path: Path, width: int, height: int, colour: tuple[int, int, int] = (200, 0, 0)) -> Path:
    Image.new("RGB", (width, height), colour).save(path)
    return path


def red_box(sheet: Image.Image, left: int, top: int, side: int) -> tuple[int, int]:
    """Width and height of what is red in a cell."""
    cell = np.asarray(sheet)[top : top + side, left : left + side].astype(int)
    red = (cell[..., 0] > 150) & (cell[..., 1] < 80)
    return int(red.any(axis=0).sum()), int(red.any(axis=1).sum())


@pytest.mark.parametrize(
    ("width", "height", "drawn"),
    [(300, 300, (96, 96)), (400, 200, (96, 48)), (100, 400, (24, 96)), (20, 10, (96, 48)), (2000, 4, (96, 1))],
)
def test_an_image_is_whole_and_in_its_proportions(
    tmp_path: Path, width: int, height: int, drawn: tuple[int, int]
) -> None:
    sheet = contact_sheet([(plain(tmp_path / "a.png", width, height), "")], columns=4, side=96)
    assert red_box(sheet, 8, 8, 96) == drawn


def test_a_turned_photo_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 200), (200, 0, 0)).save(tmp_path / "a.jpg", exif=exif)
    sheet = contact_sheet([(tmp_path / "a.jpg", "")], side=96)
    assert red_box(sheet, 8, 8, 96) == (48, 96)


def test_images_stand_in_reading_order(tmp_path: Path) -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    files = [(plain(tmp_path / f"{i}.png", 50, 50, colour), "") for i, colour in enumerate(colours)]
    sheet = contact_sheet(files, columns=2, side=64)
    row = (sheet.height - 8) // 2
    centres = [sheet.getpixel((8 + 32 + x * 72, 8 + 32 + y * row)) for x, y in ((0, 0), (1, 0), (0, 1))]
    assert centres == colours
    assert sheet.width == 2 * 72 + 8


def test_what_is_no_image_is_said_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"words")
    sheet = contact_sheet([(tmp_path / "a.jpg", "words"), (tmp_path / "gone.jpg", "")], side=96)
    cell = np.asarray(sheet)[8:104, 8:104].reshape(-1, 3)
    assert len(np.unique(cell, axis=0)) > 1
    assert tuple(cell[0]) == FRAME


def test_no_images_give_an_empty_sheet() -> None:
    assert contact_sheet([]).size[0] > 0


def test_a_caption_is_drawn_below_its_image(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.png", 50, 50)
    with_words, without = contact_sheet([(path, "näïve 日本 😀")], side=96), contact_sheet([(path, "")], side=96)
    assert np.array_equal(np.asarray(with_words)[:104], np.asarray(without)[:104])
    assert not np.array_equal(np.asarray(with_words)[104:], np.asarray(without)[104:])


FONT = ImageFont.load_default(12)
assert isinstance(FONT, ImageFont.FreeTypeFont)


@given(st.text(max_size=200), st.integers(30, 200), st.integers(1, 4))
def test_lines_fit_and_lose_nothing_but_the_end(text: str, width: int, lines: int) -> None:
    made = wrap(text, FONT, width, lines)  # type: ignore[arg-type]
    assert len(made) <= lines
    for line in made:
        assert FONT.getlength(line) <= width or len(line) <= 2
    words = "".join(text.split())
    said = "".join("".join(made).split())
    assert said == words or (said.endswith("…") and words.startswith(said[:-1]))


def test_a_caption_is_broken_at_its_spaces() -> None:
    width = FONT.getlength("a family is")
    assert wrap("a family is sitting down", FONT, width, 3) == ["a family is", "sitting", "down"]  # type: ignore[arg-type]
