"""Images that look the same are found without a model."""

import io
from pathlib import Path

from PIL import Image, ImageEnhance

from dreamloom.base.copies import group_copies
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
