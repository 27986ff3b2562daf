"""A JPEG's end is found by its markers, and is not taken for one where it stands in something else."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.base.images.jpeg import inspect_jpeg
from dreamloom.base.images.pixels import ImageError, check_whole

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def jpeg(**options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "JPEG", **options)
    return out.getvalue()


def scans_of(data: bytes) -> int:
    return inspect_jpeg(data)[1]


WHOLE = {
    "baseline": jpeg(),
    "progressive": jpeg(progressive=True),
    "restarts": jpeg(restart_marker_blocks=2),
    "a thumbnail within": jpeg(comment=jpeg(quality=5)),
    "words behind its end": jpeg() + b"and more",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_one_is_known_by_its_beginning(name: str) -> None:
    beginning = inspect_jpeg(WHOLE[name])[0]
    assert beginning is not None
    with Image.open(io.BytesIO(beginning)) as image:
        assert image.size == (80, 60)
    check_whole(WHOLE[name])


@pytest.mark.parametrize("name", sorted(set(WHOLE) - {"words behind its end"}))
@given(share=st.floats(0, 1, exclude_max=True))
def test_what_breaks_off_is_not_whole(name: str, share: float) -> None:
    data = WHOLE[name][: int(len(WHOLE[name]) * share)]
    assert inspect_jpeg(data)[0] is None
    if len(data) < len(WHOLE[name]) - 2:  # without its two last bytes, all pixels are still there
        with pytest.raises(ImageError):
            check_whole(data)


def test_broken_tables_and_strange_markers_are_not_passed_over() -> None:
    data = bytearray(WHOLE["baseline"])
    at = data.index(b"\xff\xc4")
    data[at + 5 : at + 21] = bytes([255] * 16)  # a Huffman table of more codes than there are
    with pytest.raises(ImageError):
        check_whole(bytes(data))
    strange = bytearray(WHOLE["baseline"])
    strange[-200:-198] = b"\xff\xc8"
    assert inspect_jpeg(bytes(strange))[0] is None


def test_scans_are_counted_where_they_are_decoded() -> None:
    assert [scans_of(WHOLE[name]) for name in ("baseline", "restarts", "a thumbnail within")] == [1, 1, 1]
    assert scans_of(jpeg() + jpeg(progressive=True)) == 1  # a decoder ends with the first end
    whole = WHOLE["progressive"]
    last = whole[whole.rindex(b"\xff\xda") : -2]
    for more in (0, 1, 70):
        assert scans_of(whole[:-2] + more * last + whole[-2:]) == 10 + more
    padded = whole[:2] + b"\xff" * 9 + whole[2:]  # fill bytes before a marker (ITU-T T.81, B.1.1.2)
    assert scans_of(padded) == 10
