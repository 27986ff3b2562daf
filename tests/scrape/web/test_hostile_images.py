"""Real hostile images (Pillow's, image-rs's and the EXIF orientation set) against OpenCV's decoders and by eye."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from dreamloom.base.images.pixels import ImageError, check_whole, decode, read_header

REFUSED = {
    "broken.png": "truncated",
    "truncated_jpeg.jpg": "truncated",
    "unknown_compression_method.png": "truncated",
    "syntax_num_frames_zero.png": "truncated",  # it has no pixels
    "decompression_bomb.ico": "too_many_pixels",
    "hopper_bad_exif.jpg": "truncated",  # copied as text, so it shows noise
}
NO_REFERENCE = {"rot1mir0.avif", "hopper_orientation_5.webp", "hopper_orientation_8.webp", "xmp_tags_orientation.png"}
"""OpenCV does not turn these."""


def images(shared_data: Path) -> list[Path]:
    files = sorted(p for p in (shared_data / "hostile").rglob("*") if p.is_file() and "LICENSE" not in p.name)
    assert len(files) > 60
    return files


@pytest.mark.parametrize("view", ["Landscape", "Portrait"])
def test_all_orientations_show_one_image(shared_data: Path, view: str) -> None:
    size = (1800, 1200) if view == "Landscape" else (1200, 1800)
    upright = [decode(shared_data / "hostile" / "exif" / f"{view}_{n}.jpg") for n in range(9)]
    assert {image.size for image in upright} == {size}
    first = np.asarray(upright[0].resize((150, 150)), int)  # small: each carries its number in large letters
    for number, image in enumerate(upright):
        assert np.abs(np.asarray(image.resize((150, 150)), int) - first).mean() < 3, number
        header = read_header(shared_data / "hostile" / "exif" / f"{view}_{number}.jpg")
        assert (header.width, header.height, header.plain) == (*size, number < 2)


@pytest.mark.slow
def test_pixels_are_those_of_opencv(shared_data: Path) -> None:
    compared = 0
    for path in images(shared_data):
        reference = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if path.name in {*REFUSED, *NO_REFERENCE} or reference is None:
            continue
        with Image.open(path) as image:
            # OpenCV shows what lies under transparent pixels, and knows no ICC
            if image.has_transparency_data or "icc_profile" in image.info:
                continue
        assert np.abs(np.asarray(decode(path), int) - reference[..., ::-1]).max() <= 1, path.name
        compared += 1
    assert compared > 40


def test_profiles_are_converted(shared_data: Path) -> None:
    path = shared_data / "hostile" / "pillow" / "icc_profile_big.jpg"
    with Image.open(path) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        expected = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert expected is not None
    assert np.array_equal(np.asarray(decode(path)), np.asarray(expected))
    assert not read_header(path).plain


def test_transparent_pixels_are_the_background(shared_data: Path) -> None:
    for name in ("transparent.png", "chi.gif", "different_transparency.gif", "apng/blend_op_over.png", "l_trns.png"):
        path = shared_data / "hostile" / "pillow" / name
        with Image.open(path) as image:
            alpha = np.asarray(image.convert("RGBA"))[..., 3:].astype(float) / 255
            colour = np.asarray(image.convert("RGBA"))[..., :3]
        blended = colour * alpha + np.array([7, 130, 250]) * (1 - alpha)
        assert np.abs(np.asarray(decode(path, background=(7, 130, 250))) - blended).max() <= 1, name


def test_avif_is_turned_as_its_boxes_say(shared_data: Path) -> None:
    """irot 1 (a quarter to the left), then imir 0 (top to bottom): together, rows become columns (ISO 23008-12)."""
    path = shared_data / "hostile" / "pillow" / "avif" / "rot1mir0.avif"
    pixels: Any = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    stored = pixels[..., ::-1]
    assert np.abs(np.asarray(decode(path), int) - stored.transpose(1, 0, 2)).max() <= 1


def test_a_16_bit_image_taken_in_the_dark_stays_dark(shared_data: Path) -> None:
    """Its values are 291 to 694 of 65,535; TIFF 6.0 says that white is what the bits can hold, not what was seen."""
    values = np.asarray(decode(shared_data / "hostile" / "pillow" / "16bit.cropped.tif"))
    assert (values.min(), values.max()) == (1, 3)


def test_every_file_gives_an_image_or_its_reason(shared_data: Path) -> None:
    for path in images(shared_data):
        if path.name in REFUSED:
            with pytest.raises(ImageError) as caught:
                decode(path.read_bytes())
            assert caught.value.reason == REFUSED[path.name]
            continue
        header, image = read_header(path), decode(path)
        assert (image.mode, image.size) == ("RGB", (header.width, header.height)), path.name
        check_whole(path)


def test_warnings_as_errors(shared_data: Path) -> None:
    code = f"""
from pathlib import Path
from dreamloom.base.images.pixels import ImageError, decode, read_header
for path in Path({str(shared_data / "hostile" / "pillow")!r}).rglob("*.*"):
    try:
        read_header(path)
        decode(path)
    except ImageError:
        pass
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
