"""Unpacks bodies: gzip and deflate as hosts send them, and what says that it is packed and is not."""

import zlib
from collections.abc import Callable
from typing import Any

from multidict import CIMultiDictProxy

from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.outcome import RowDropped

_DECOMPRESSED = frozenset({"gzip", "x-gzip", "deflate"})
_UNSUPPORTED_ENCODINGS = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
"""The other encodings of bodies that hosts use (IANA's registry of content codings)."""


def decompressor(headers: CIMultiDictProxy[str]) -> Callable[[bytes, int], bytes] | None:
    """Returns a function (chunk, max_bytes) → decompressed bytes for the Content-Encoding; None for identity.

    What is no encoding, such as aws-chunked, utf-8 or none, is identity; and so is any where the bytes are plain.
    """
    names = [
        name.partition(";")[0].strip(' \t"').lower()
        for value in headers.getall("Content-Encoding", [])
        for name in value.split(",")
    ]
    encodings = [name for name in names if name in _DECOMPRESSED or name in _UNSUPPORTED_ENCODINGS]
    return _Decompressor(", ".join(encodings)) if encodings else None


_GZIP = b"\x1f\x8b"
_IMAGES = (b"\xff\xd8", b"\x89P", b"GI", b"RI")
"""First bytes of JPEG, PNG, GIF and WebP, with which no packed image begins."""
_MAX_MEMBERS = 1000
"""Maximum members of a gzip; programs that write several make one of each 64 KB or more."""


class _Decompressor:
    """Unpacks gzip, also of several members (RFC 1952, 2.2); zlib; and raw deflate, which some hosts call deflate.

    Stores give files that were uploaded as they are the encodings that somebody once set for all.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream: Any = None
        self._members = 0
        self._is_plain = False
        """Whether the bytes are no encoding's."""
        self._is_over = False
        """Whether something else follows the last member."""
        self._waiting = b""
        """What has not been unpacked, as it is too short to tell its form."""

    def __call__(self, chunk: bytes, max_bytes: int) -> bytes:
        """Returns what a chunk holds, at most so many bytes. What follows the last member is passed over.

        Raises:
            RowDropped: truncated, where it is broken; unsupported.
        """
        unpacked, chunk = bytearray(), self._waiting + chunk
        self._waiting = b""
        while chunk and not self._is_over and len(unpacked) < max_bytes:
            if self._is_plain:
                return chunk[:max_bytes]
            if self._stream is None or self._stream.eof:
                if len(chunk) < 2:
                    self._waiting = chunk
                    break
                if not self._members:
                    self._is_plain = chunk[:2] in _IMAGES or ("gzip" in self._name and not _has_header(chunk))
                    if self._is_plain:
                        continue
                self._is_over = self._members > 0 and not chunk.startswith(_GZIP)
                if self._is_over:
                    break
                self._begin_member(chunk)
            try:
                unpacked += self._stream.decompress(chunk, max_bytes - len(unpacked))
            except zlib.error as error:
                raise RowDropped(Status.TRUNCATED, f"broken {self._name}") from error
            chunk = self._stream.unused_data
        return bytes(unpacked)

    def _begin_member(self, begin: bytes) -> None:
        if self._name not in _DECOMPRESSED:
            raise RowDropped(Status.UNSUPPORTED, f"Content-Encoding {self._name[:40]}")
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise RowDropped(Status.TRUNCATED, f"{self._name} of more than {_MAX_MEMBERS:,} members")
        is_raw = self._name == "deflate" and not _has_header(begin)
        self._stream = zlib.decompressobj(wbits=-15 if is_raw else 47)  # 47: by gzip's or zlib's header


def _has_header(begin: bytes) -> bool:
    """Whether it begins as gzip or zlib (RFC 1950, 2.2) do."""
    return begin.startswith(_GZIP) or (begin[0] & 15 == 8 and int.from_bytes(begin[:2]) % 31 == 0)
