"""Whether one image shows a part of another, as their pixels tell."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dreamloom.base.images.pixels import decode
from dreamloom.curate.rules.crops import PartFinder, is_part, shrink
from tests.curate.conftest import noise

Box = tuple[float, float, float, float]
BOXES: list[Box] = [(0.1, 0.1, 0.9, 0.9), (0, 0, 0.8, 0.8), (0.2, 0.05, 1, 0.85), (0.2, 0, 1, 1), (0, 0, 1, 0.75)]


def cut(image: Image.Image, box: Box) -> Image.Image:
    left, top, right, bottom = box
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def are_alike(one: Image.Image, other: Image.Image) -> bool:
    looks = shrink(one), shrink(other)
    assert looks[0] is not None and looks[1] is not None
    found = is_part(looks[0], looks[1])
    assert is_part(looks[1], looks[0]) == found
    return found


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Image.Image]:
    return [decode(path, at_least=128) for path in sorted((shared_data / "coco" / "images").glob("*.jpg"))[:12]]


@pytest.mark.parametrize("box", BOXES)
def test_a_part_is_found_wherever_it_was_cut_out(photos: list[Image.Image], box: Box) -> None:
    assert all(are_alike(photo, cut(photo, box)) for photo in photos)


def test_other_photos_and_small_parts_are_not_alike(photos: list[Image.Image]) -> None:
    assert not any(are_alike(one, cut(other, BOXES[0])) for one, other in combinations(photos, 2))
    blurred = [noise(seed, 120, 90) for seed in range(8)]  # of which some are as bright as others, here and there
    assert not any(are_alike(one, other) for one, other in combinations(blurred, 2))
    assert not any(are_alike(photo, cut(photo, (0.1, 0.1, 0.5, 0.5))) for photo in photos)


def test_plain_images_have_nothing_that_could_be_alike() -> None:
    white, noisy = Image.new("RGB", (96, 64), "white"), np.full((64, 96, 3), 250, dtype=np.uint8)
    noisy += np.random.default_rng(0).integers(0, 5, noisy.shape, dtype=np.uint8)
    shades = [white, Image.new("RGB", (80, 80), "red"), Image.fromarray(noisy)]
    assert not any(are_alike(one, other) for one, other in combinations(shades, 2))
    drawings = []
    for box in ((10, 10, 40, 40), (50, 20, 90, 60), (60, 5, 70, 50)):
        drawings.append(white.copy())
        ImageDraw.Draw(drawings[-1]).ellipse(box, outline="black")
    assert not any(are_alike(one, other) for one, other in combinations([*shades, *drawings], 2))


def test_strips_and_files_that_are_no_images_are_parts_of_none(photos: list[Image.Image], tmp_path: Path) -> None:
    assert shrink(Image.new("L", (500, 100))) is None
    files = [tmp_path / f"{name}.png" for name in ("whole", "part", "broken", "gone", "strip")]
    photos[0].save(files[0])
    cut(photos[0], BOXES[0]).save(files[1])
    files[2].write_bytes(b"\x89PNG\r\n\x1a\n")
    photos[0].resize((500, 100)).save(files[4])
    pairs = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 0]])
    assert PartFinder(files.__getitem__)(pairs).tolist() == [True, False, False, False, True]
    assert PartFinder(files.__getitem__)(pairs[:0]).tolist() == []
