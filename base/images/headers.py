"""The headers of many image files, of which the file index remembers those that nobody changed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Protocol

import PIL

from dreamloom.base.files.file_index import FileRange, file_facts
from dreamloom.base.images.formats import decoded_formats
from dreamloom.base.images.pixels import ImageError, ImageHeader, Reason, read_header
from dreamloom.base.progress import Progress, silent

_VERSION = 1
"""Raised when `read_header` says something else of the same bytes."""


class ImageRange(FileRange, Protocol):
    """A file that is an image, or a part of one."""

    def decodable(self) -> Path | bytes:
        """Returns what `dreamloom.base.images.pixels` decodes."""


def read_headers(
    images: Sequence[ImageRange], num_threads: int, progress: Progress = silent
) -> list[ImageHeader | Reason]:
    """Reads the header of each image, or says why it can't be read; opens only those that changed since they were read.

    Args:
        images: image files, or parts of files; hashable.
        num_threads: images that are read at once.
        progress: called with the number of headers read.
    """
    faults: dict[ImageRange, Reason] = {}
    kind = f"header {_VERSION}, Pillow {PIL.__version__}, {len(decoded_formats())} formats"
    facts = file_facts(images, kind, _reader(faults), progress, "reading headers", num_threads)
    parse = cache(_parse)  # so that images that are alike share an object
    return [
        faults.get(image, "missing_file") if fact is None else parse(fact)
        for image, fact in zip(images, facts, strict=True)
    ]


def _parse(fact: str) -> ImageHeader:
    return ImageHeader(*json.loads(fact))


def _reader(faults: dict[ImageRange, Reason]) -> Callable[[ImageRange], str | None]:
    """Returns what reads a header as text; a fault is noted and not remembered, as a plugin may mend it."""

    def read(image: ImageRange) -> str | None:
        try:
            return json.dumps(astuple(read_header(image.decodable())))
        except ImageError as error:
            faults[image] = error.reason
            return None

    return read
