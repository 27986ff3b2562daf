"""The file name extensions of images: which are decoded, and which are known but not decoded."""

import os
from importlib.util import find_spec

PLUGINS = {"heic": "pillow_heif", "jxl": "pillow_jxl"}
"""Extra of this package → the module of Pillow's plugin, which is imported where it is installed."""

PACKAGES = {"heic": "pillow-heif", "jxl": "pillow-jxl-plugin"}
"""Extra → the package that has the plugin."""
OF_PLUGINS = {"heic": {".heic", ".heif", ".hif"}, "jxl": {".jxl"}}
"""Extra → the extensions that its plugin decodes."""
_INSTALLED = {each for extra in PLUGINS if find_spec(PLUGINS[extra]) for each in OF_PLUGINS[extra]}

DECODED_EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jfif", ".jpe", ".jif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif"),
        *(".tif", ".tiff", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".tga", ".ico"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        *_INSTALLED,
    }
)
"""Extensions of images that are decoded, in lower case. EveryDream reads .jpg, .jpeg, .jfif, .png, .webp and .bmp."""

UNSUPPORTED_EXTENSIONS = frozenset(
    {
        *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".wdp", ".hdp", ".bpg", ".flif", ".exr", ".hdr", ".dds", ".qoi"),
        *(".psd", ".psb", ".xcf", ".kra", ".clip", ".svg", ".svgz", ".eps", ".pcx", ".sgi", ".icns", ".cur", ".xpm"),
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef"),
        *(".srw", ".3fr", ".fff", ".erf", ".kdc", ".dcr", ".mrw", ".x3f", ".iiq", ".rwl", ".mef", ".mos"),
    }
    - _INSTALLED
)
"""Extensions of images that are not decoded, in lower case; a user hears of each such file."""

IMAGE_EXTENSIONS = DECODED_EXTENSIONS | UNSUPPORTED_EXTENSIONS


def is_image_name(name: str) -> bool:
    """Tells whether a file is an image, by its extension."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS
