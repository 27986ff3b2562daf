"""The file name extensions of images: which are decoded, and which are known but not decoded."""

import os

DECODED_EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
"""Extensions of images that are decoded, in lower case. EveryDream reads the first five and .bmp."""

UNSUPPORTED_EXTENSIONS = frozenset({".heic", ".heif", ".jxl", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw"})
"""Extensions of images that are not decoded, in lower case; a user hears of each such file."""

IMAGE_EXTENSIONS = DECODED_EXTENSIONS | UNSUPPORTED_EXTENSIONS


def is_image_name(name: str) -> bool:
    """Tells whether a file is an image, by its extension."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS
