"""Images that look the same are found without a model."""

import io
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from dreamloom.base.images.copies import SHADES, components, group_copies, links
from dreamloom.base.progress import silent
from tests.curate.conftest import noise


def saved(folder: Path, name: str, image: Image.Image) -> Path:
    image.save(folder / name)
    return folder / name


def test_shrunk_compressed_and_brightened_copies_are_found_and_others_are_not(tmp_path: Path) -> None:
    image, compressed = noise(1, 320, 240), io.BytesIO()
    image.save(compressed, "JPEG", quality=40)
    images = [
        saved(tmp_path, "0.png", image),
        saved(tmp_path, "1.png", noise(2, 320, 240)),
        saved(tmp_path, "2.png", image.resize((160, 120))),
        saved(tmp_path, "3.jpg", Image.open(compressed)),
        saved(tmp_path, "4.png", ImageEnhance.Brightness(image).enhance(1.03)),
        saved(tmp_path, "5.png", image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    ]
    assert group_copies(images, silent) == [0, None, 0, 0, 0, None]


def test_color_alone_tells_images_apart_and_a_broken_one_is_alone(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    images = [
        saved(tmp_path, "0.png", Image.new("RGB", (64, 64), "red")),
        saved(tmp_path, "1.png", Image.new("RGB", (64, 64), "blue")),
        tmp_path / "broken.png",
        saved(tmp_path, "2.png", Image.new("RGB", (48, 48), "blue")),
    ]
    assert group_copies(images, silent) == [None, 1, None, 1]
    assert group_copies([], silent) == []


def test_a_crowd_of_one_hash_is_told_apart_by_color(tmp_path: Path) -> None:
    """More plain images than are compared each with each: reds that differ by a few shades, and blues."""
    reds = [Image.new("RGB", (8, 8), (200 + n % 5, 0, 0)) for n in range(300)]
    blues = [Image.new("RGB", (8, 8), (0, 0, 200 + n % 5)) for n in range(300)]
    mixed = [image for pair in zip(reds, blues, strict=True) for image in pair]
    images = [saved(tmp_path, f"{n:03}.png", image) for n, image in enumerate(mixed)]
    alone = saved(tmp_path, "alone.png", Image.new("RGB", (8, 8), (255, 255, 255)))
    assert group_copies([*images, alone], silent) == [0, 1] * 300 + [None]


@given(st.lists(st.integers(0, 255), min_size=260, max_size=260), st.integers(0, 2**32))
@settings(max_examples=5)
def test_of_a_crowd_no_copies_are_parted(shades: list[int], seed: int) -> None:
    """Images of one hash, whose groups may be joined and are never split by the short way through a crowd."""
    noisy = np.random.default_rng(seed).normal(np.array(shades)[:, None], 6, (len(shades), 192)).astype(np.float32)
    groups = components(len(shades), links(np.zeros(len(shades), dtype=np.int64), noisy))
    near = np.abs(noisy[:, None] - noisy).mean(axis=2) <= SHADES
    assert (groups[:, None] == groups)[near].all()
