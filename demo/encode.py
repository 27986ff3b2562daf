"""Encodes pixels as image files of the kinds that are found on the web."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from dreamloom.demo.gallery import Exhibit, Form
from dreamloom.demo.world import BACKGROUNDS, Pixels, render


def draw(exhibit: Exhibit) -> bytes:
    """Returns the file of an exhibit without its fault; the same bytes each time."""
    return encode(render(exhibit.scene, exhibit.width, exhibit.height), exhibit.form, turn=exhibit.number)


def encode(pixels: Pixels, form: Form, turn: int = 0) -> bytes:
    """Returns an image file.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        form: the kind of file.
        turn: which of three EXIF orientations a TURNED_JPEG gets.
    """
    if form is Form.DEEP_PNG:
        return _deep_png(pixels)
    if form is Form.TURNED_JPEG:
        return _turned_jpeg(Image.fromarray(pixels), turn)
    prepare, format_, options = _KINDS[form]
    return _save(prepare(Image.fromarray(pixels)), format_, **options)


def _same(image: Image.Image) -> Image.Image:
    return image


def _cmyk(image: Image.Image) -> Image.Image:
    return image.convert("CMYK")


def _palette(image: Image.Image) -> Image.Image:
    return image.quantize(256)


def _clear_white(image: Image.Image) -> Image.Image:
    """Makes white transparent, with black beneath: a reader that ignores alpha shows a black background."""
    pixels = np.asarray(image)
    white = (pixels == BACKGROUNDS["white"]).all(axis=2)
    alpha = np.where(white, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([np.where(white[..., None], 0, pixels).astype(np.uint8), alpha]))


_KINDS: dict[Form, tuple[Callable[[Image.Image], Image.Image], str, dict[str, int]]] = {
    Form.JPEG: (_same, "JPEG", {"quality": 90}),
    Form.CMYK_JPEG: (_cmyk, "JPEG", {"quality": 92}),
    Form.PNG: (_same, "PNG", {"compress_level": 1}),
    Form.PALETTE_PNG: (_palette, "PNG", {"compress_level": 1}),
    Form.ALPHA_PNG: (_clear_white, "PNG", {"compress_level": 1}),
    Form.WEBP: (_same, "WEBP", {"quality": 90, "method": 0}),
    Form.GIF: (_palette, "GIF", {}),
}

_TURNS = (
    (3, Image.Transpose.ROTATE_180),
    (6, Image.Transpose.ROTATE_90),
    (8, Image.Transpose.ROTATE_270),
)
"""EXIF orientation → the turn of the file's pixels that it undoes."""


def _turned_jpeg(image: Image.Image, turn: int) -> bytes:
    orientation, transpose = _TURNS[turn % len(_TURNS)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.transpose(transpose).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def _deep_png(pixels: Pixels) -> bytes:
    import cv2

    deep = pixels[..., ::-1].astype(np.uint16) * 257  # 255 becomes 65535; OpenCV wants BGR
    return bytes(cv2.imencode(".png", deep, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())


def _save(image: Image.Image, format_: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()
