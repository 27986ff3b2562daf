"""Reads the heads of responses as browsers and urllib do: what servers get wrong there loses no image.

aiohttp's parser refuses a whole response for a line without a colon, a blank in a name, a line of more than 8 KiB,
equal Content-Lengths, or a Content-Length beside chunks. So it is given the headers that scraping reads, and in order.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

MAX_HEAD_BYTES = 256 * 1024
"""Maximum bytes of a response's head, as Chrome has it."""
_MAX_LINE_BYTES = 64 * 1024
"""Maximum bytes of a line, as urllib has it."""
_MAX_INTERIM = 20
"""Maximum interim answers before one; hosts send one or two."""
_STATUS = re.compile(rb"(?i:HTTP/([0-9.]*)|ICY)[ \t]+0*([1-9][0-9]{2})(?![^ \t\r])[ \t]*([^\r]*)")
"""The first line of an answer, as urllib and Chrome read it: of any version, with any blanks."""
_DIGITS = 18
"""Maximum digits of a length; more is as much."""
_END = re.compile(rb"\n\r?\n")
_HEADERS = frozenset(
    b"connection content-encoding content-length content-usage date location retry-after set-cookie tdm-reservation "
    b"transfer-encoding x-robots-tag".split()
)
"""The headers that are read."""
_CONTROLS_TO_BLANKS = bytes.maketrans(bytes([*range(0x20), 0x7F]), b" " * 33)


class LenientConnector(aiohttp.TCPConnector):
    """Opens connections whose responses are read leniently."""

    def __init__(self, **options: Any) -> None:
        """Takes the options of aiohttp's connector."""
        super().__init__(**options)
        factory: Any = partial(_LenientHandler, loop=self._loop)
        self._factory = factory  # aiohttp has no other way to say by what responses are read


class _LenientHandler(ResponseHandler):
    """Collects the head of each response, and passes it on as `clean_head` makes it; bodies pass as they are."""

    _head: bytearray | None = None
    """The head so far; None while a body is read."""
    _interim = 0
    """Heads before that of the answer."""

    def set_response_params(self, **params: Any) -> None:
        self._head, self._interim = bytearray(), 0  # before the call, as it gives what has arrived already
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        while self._head is not None:
            searched = max(0, len(self._head) - 2)
            self._head += data
            if not searched:
                self._head = self._head.lstrip(b"\r\n")
            end = _END.search(self._head, searched)
            if (end.start() if end else len(self._head)) > MAX_HEAD_BYTES:
                return self._refuse("a head without end")
            if end is None:
                return None
            head, data = bytes(self._head[: end.start()]), bytes(self._head[end.end() :])
            if is_interim(head):
                self._head, self._interim = bytearray(), self._interim + 1
                if self._interim > _MAX_INTERIM:
                    return self._refuse("interim answers without end")
                continue
            self._head = None
            try:
                data = clean_head(head) + data
            except ValueError as error:
                return self._refuse(str(error))
        return super().data_received(data)

    def _refuse(self, reason: str) -> None:
        self.set_exception(HttpProcessingError(message=reason))
        if self.transport is not None:
            self.transport.close()


def is_interim(head: bytes) -> bool:
    """Whether another head follows: 100 Continue, 103 Early Hints; not after 101, Switching Protocols."""
    return re.match(rb"HTTP/\d\.\d 1(?!01)\d\d\b", head) is not None


def clean_head(head: bytes) -> bytes:
    """Returns the head of a response, without its empty line, as aiohttp's parser takes it, with its empty line.

    Raises:
        ValueError: a line is too long.
    """
    status, *lines = head.split(b"\n")
    if match := _STATUS.match(status):
        status = b"HTTP/1.%b %b %b" % (b"0" if match[1] in (b"0.9", b"1.0") else b"1", match[2], match[3])
    if max(map(len, lines), default=0) > _MAX_LINE_BYTES:
        raise ValueError("a header without end")
    headers = list(_read_headers(lines))
    codings = {
        coding.strip().lower()
        for name, value in headers
        if name == b"transfer-encoding"
        for coding in value.split(b",")
    }
    lengths = {length.strip() for name, value in headers if name == b"content-length" for length in value.split(b",")}
    kept = [(name, value) for name, value in headers if name not in (b"transfer-encoding", b"content-length")]
    if b"chunked" in codings:  # it has the last word (RFC 9112, 6.3)
        kept.append((b"transfer-encoding", b"chunked"))
    else:
        sizes = {length.lstrip(b"0") or b"0" for length in lengths if length.isdigit()}
        kept += [(b"content-length", size if len(size) < _DIGITS else b"9" * _DIGITS) for size in sorted(sizes)]
    return b"\r\n".join([status.rstrip(b"\r"), *(name + b": " + value for name, value in kept), b"", b""])


def _read_headers(lines: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yields names, in lower case, and values of the headers that are read; a line that is no header is passed over."""
    fields: list[tuple[bytes, list[bytes]]] = []
    for line in lines:
        if line[:1] in (b" ", b"\t"):  # goes on with the line before (RFC 9112, 5.2)
            if fields:
                fields[-1][1].append(line)
            continue
        name, colon, value = line.partition(b":")
        fields.append((name.strip().lower() if colon else b"", [value]))
    for name, values in fields:
        if name in _HEADERS:
            yield name, b" ".join(value.translate(_CONTROLS_TO_BLANKS).strip() for value in values)
