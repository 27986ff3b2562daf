"""Bodies are unpacked as browsers do, whatever their hosts call them."""

import gzip
import zlib

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from dreamloom.scrape.web.content_encoding import decompressor
from dreamloom.scrape.web.outcome import RowDropped


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("gzip", gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")),
        ("x-gzip", gzip.compress(b"one two") + bytes(9)),
        ("deflate", zlib.compress(b"one two")),
        ("deflate", raw_deflate(b"one two")),
        ("deflate", gzip.compress(b"one two")),
        ("gzip", zlib.compress(b"one two")),
    ],
    ids=["gzip of members", "gzip and zeros", "zlib", "raw deflate", "gzip as deflate", "zlib as gzip"],
)
@pytest.mark.parametrize("size", [1, 5, 99])
def test_bodies_are_unpacked_as_browsers_do_in_whatever_pieces_they_come(name: str, packed: bytes, size: int) -> None:
    decompress = decompressor(CIMultiDictProxy(CIMultiDict({"Content-Encoding": name})))
    assert decompress is not None
    assert b"".join(decompress(packed[n : n + size], 99) for n in range(0, len(packed), size)) == b"one two"


@pytest.mark.parametrize("name", ["gzip", "gzip, gzip", "deflate", "br", "compress", '"GZIP"; q=1'])
@pytest.mark.parametrize("size", [1, 5, 99])
def test_a_plain_image_is_taken_whatever_its_host_calls_it(name: str, size: int) -> None:
    for start in (b"\xff\xd8\xff\xe0", b"\x89PNG", b"RIFF", b"GIF8"):
        decompress = decompressor(CIMultiDictProxy(CIMultiDict({"Content-Encoding": name})))
        image = start + bytes(40)
        assert decompress is not None
        assert b"".join(decompress(image[n : n + size], 99) for n in range(0, len(image), size)) == image
        assert len(decompress(bytes(200), 99)) == 99


def test_a_gzip_has_a_number_of_members_that_a_program_writes() -> None:
    decompress = decompressor(CIMultiDictProxy(CIMultiDict({"Content-Encoding": "gzip"})))
    assert decompress is not None
    with pytest.raises(RowDropped, match="more than 1,000 members"):
        decompress(gzip.compress(b"") * 1001, 99)
