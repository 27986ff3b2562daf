"""Images whose bytes were converted as if they were text, by git, FTP or a program: decoders show noise for them."""

import re
from pathlib import Path

from dreamloom.base.images.jpeg import SOS, segments

DETAIL = "its bytes were converted as if they were text; copy it again"
"""What the records say of such an image."""
_SAMPLE = 2**16
"""Bytes that are looked at."""
_GLANCE = 2**12
_FEW = 4
"""Line ends that show nothing: of those that nobody converted, one in 256 is of both characters."""
_HEADERS = re.compile(
    rb"(?:\xef\xbf\xbd){3}|\xc3\xbf\xc3\x98\xc3\xbf"  # of a JPEG: read as UTF-8, and as Latin-1, and written as UTF-8
    rb"|(?:\xef\xbf\xbd|\xc2\x89|\xe2\x80\xb0|\?)PNG|\x89PNG(?!\r\n\x1a\n)"  # a PNG's mark is made to show it
    rb"|RIFF.{5,9}WEBP",
    re.DOTALL,
)


def has_converted_header(beginning: bytes) -> bool:
    """Tells it by the first bytes of a file that is no image any more."""
    return _HEADERS.match(beginning) is not None


def has_converted_line_ends(source: bytes | Path) -> bool:
    """Tells whether each line end of a JPEG or WebP is of both characters, or of one only.

    So many have both by chance in no compressed data. Then a JPEG's segments do not follow one another any more, and a
    WebP is longer than it says. Where CR has become LF, all other bytes are frequent, and CR is not there.

    Args:
        source: the file's bytes, or its path.
    """
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if isinstance(source, Path):
        with source.open("rb") as stream:
            source = stream.read(_SAMPLE)
    first = source.find(b"\n", 0, _GLANCE)
    if first > 0 and source[first - 1] != 13 and source.find(b"\r", 0, _GLANCE) >= 0:  # as in nearly all
        return False
    sample = source[:_SAMPLE]
    count = sample.count(b"\n")
    if count >= _FEW and count == sample.count(b"\r\n"):
        if sample[:4] == b"RIFF":
            return int.from_bytes(sample[4:8], "little") + 8 < size
        return all(code != SOS for code, _, _ in segments(sample))
    if b"\r" in sample or len(sample) < _SAMPLE:
        return False
    return all(sample.count(value) > _FEW for value in set(range(256)) - {13})
