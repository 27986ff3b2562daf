"""One request → its bytes, or where to go on, within limits of time and size; or the reason why not."""

import asyncio
import os
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Self
from urllib.parse import urljoin

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.address import PublicResolver, resolver_status, system_resolver
from dreamloom.scrape.web.http_dates import moment
from dreamloom.scrape.web.optout import ROBOT, read_consent
from dreamloom.scrape.web.outcome import Dropped

if TYPE_CHECKING:
    from dreamloom.scrape.web.config import ScrapeConfig

_MOVED = (301, 302, 303, 307, 308)
_OWN_STATUS = {403: Status.HTTP_403, 404: Status.HTTP_404, 410: Status.HTTP_410, 429: Status.HTTP_429}
_FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError, EOFError)
_KEEP_ALIVE_S = 2.0
"""An idle connection's life: a host's images come close together, and open files are few (1,024 as a rule)."""


@dataclass(frozen=True)
class Fetched:
    """What an address gave."""

    body: bytes
    consent: str


class Fetcher:
    """A session with one connector and one TLS context for all addresses of a part.

    Used as `async with Fetcher(config) as fetcher`.
    """

    def __init__(self, config: "ScrapeConfig") -> None:
        self._config = config

    async def __aenter__(self) -> Self:
        config = self._config
        self._resolver = PublicResolver(system_resolver(), allow_private_addresses=config.allow_private_addresses)
        connector = aiohttp.TCPConnector(
            limit=config.concurrency,
            resolver=self._resolver,
            ttl_dns_cache=600,
            keepalive_timeout=_KEEP_ALIVE_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={
                "User-Agent": user_agent(config.user_agent_contact),
                "Accept": "image/*, */*;q=0.1",
                # aiohttp asks for whatever it finds a library for, and for deflate, which comes in two forms
                "Accept-Encoding": "gzip",
            },
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # inflated here, where the cap is
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._resolver.close()

    async def get(self, address: URL, within_s: float) -> Fetched | str:
        """Asks for an image once.

        Every hop of a redirect is a request of its own, so that each is looked at, and waits for its host's turn, like
        the first: an address that is public may send one to one that is not.

        Args:
            address: one that was checked.

        Returns:
            The bytes, or the address to which it has moved, which was not checked.

        Raises:
            Dropped: with any of the statuses of the network and the host's answer.
        """
        async with self._answer(address, within_s) as answer:
            if answer.status in _MOVED and "Location" in answer.headers:
                self._listen(answer)
                return urljoin(str(address), answer.headers["Location"].strip())
            return await self._read(answer)

    async def beginning(self, address: URL, most: int) -> bytes | str:
        """The first bytes of a robots.txt, or the address to which it has moved.

        Raises:
            Dropped: as `get`; http_429 and http_5xx for a host that can't be asked just now.
        """
        async with self._answer(address, self._config.timeout_s) as answer:
            if answer.status in _MOVED and "Location" in answer.headers:
                return urljoin(str(address), answer.headers["Location"].strip())
            _check_status(answer)
            inflate = _inflater(answer.headers.get("Content-Encoding", "identity"))
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk if inflate is None else inflate(chunk, most + 1 - len(body))
                if len(body) > most:
                    break
            return bytes(body[:most])

    @asynccontextmanager
    async def _answer(self, address: URL, within_s: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """One answer, whatever its status; what goes wrong until the block ends is a Dropped."""
        try:
            async with (
                asyncio.timeout(within_s),
                self._session.get(address, allow_redirects=False) as answer,
            ):
                yield answer
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            limit = self._config.connect_timeout_s if connecting else self._config.timeout_s
            raise Dropped(Status.TIMEOUT, f"{'no connection' if connecting else 'not done'} in {limit:g} s") from error
        except (*_FAILURES, ValueError) as error:
            raise Dropped(*_network_status(error)) from error

    def _listen(self, answer: aiohttp.ClientResponse) -> str:
        consent = read_consent(answer.headers)
        if consent.refused and self._config.respect_optout:
            raise Dropped(Status.OPTED_OUT, consent.says, consent=consent.says)
        return consent.says

    async def _read(self, answer: aiohttp.ClientResponse) -> Fetched:
        _check_status(answer)
        consent = self._listen(answer)
        try:
            return Fetched(await self._body(answer), consent)
        except Dropped as dropped:
            dropped.consent = consent
            raise
        except TimeoutError:
            raise
        except _FAILURES as error:
            raise Dropped(Status.SHORT_BODY, "the body broke off", consent=consent) from error

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        most = self._config.max_bytes
        too_large = Dropped(Status.TOO_LARGE, f"more than {most} bytes")
        if (answer.content_length or 0) > most:
            raise too_large
        inflate = _inflater(answer.headers.get("Content-Encoding", "identity"))
        wire, size, chunks = 0, 0, []
        async for chunk in answer.content.iter_any():
            wire += len(chunk)
            chunks.append(chunk if inflate is None else inflate(chunk, most + 1 - size))
            size += len(chunks[-1])
            if max(wire, size) > most:
                raise too_large
        return b"".join(chunks)


def user_agent(contact: str) -> str:
    """Who asks: the program, its version and whom to write to."""
    return f"{ROBOT}/{version('dreamloom')}" + (f" (+{contact})" if contact else "")


def _check_status(answer: aiohttp.ClientResponse) -> None:
    if not 200 <= answer.status < 300:
        status = _OWN_STATUS.get(answer.status, Status.HTTP_5XX if answer.status >= 500 else Status.HTTP_4XX)
        raise Dropped(status, f"HTTP {answer.status}", wait_s=_retry_after(answer.headers))


def _inflater(encoding: str) -> Callable[[bytes, int], bytes] | None:
    """What undoes a Content-Encoding, at most so many bytes at a time; None: there is nothing to undo."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in ("gzip", "x-gzip", "deflate"):
        raise Dropped(Status.UNSUPPORTED, f"Content-Encoding {name[:40]}")
    stream = zlib.decompressobj(wbits=47)  # gzip's or zlib's header, whichever is there

    def inflate(chunk: bytes, most: int) -> bytes:
        try:
            return stream.decompress(chunk, most)
        except zlib.error as error:
            raise Dropped(Status.TRUNCATED, f"broken {name}") from error

    return inflate


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from either form of Retry-After; None where there is none, or none that can be read."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value[:9])
    until = moment(value)
    now = moment(headers.get("Date", "")) or datetime.now(UTC)  # by the host's clock, which may not be ours
    return None if until is None else max(0.0, (until - now).total_seconds())


def _network_status(error: Exception) -> tuple[Status, str]:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return resolver_status(error.os_error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "")
        return Status.TLS, reason or "the certificate is not good"
    if isinstance(error, aiohttp.ClientSSLError):
        return Status.TLS, getattr(error.os_error, "reason", "") or "no TLS connection"
    if isinstance(error, ssl.SSLError):
        return Status.TLS, error.reason or "no TLS connection"
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return Status.BAD_URL, "not an address that can be asked for"
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError | HttpProcessingError):
        return Status.CONNECTION, "the answer is not HTTP"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Status.CONNECTION, "closed without an answer"
    if isinstance(error, OSError) and error.errno:
        return Status.CONNECTION, os.strerror(error.errno)
    return Status.CONNECTION, "no connection"
