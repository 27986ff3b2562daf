"""Sends one request, within limits of time and size, and turns every way in which it can fail into a status."""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from types import MappingProxyType, SimpleNamespace
from typing import Self

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.address import PublicResolver, join_url, resolver_error_status, system_resolver
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.content_encoding import decompressor
from dreamloom.scrape.web.cookies import add_cookies
from dreamloom.scrape.web.http_dates import parse_http_date
from dreamloom.scrape.web.optout import ROBOT, read_consent
from dreamloom.scrape.web.outcome import RowDropped
from dreamloom.scrape.web.response_head import MAX_HEAD_BYTES, LenientConnector

_REDIRECTS = (301, 302, 303, 307, 308)
_HTTP_STATUSES = {403: Status.HTTP_403, 404: Status.HTTP_404, 410: Status.HTTP_410, 429: Status.HTTP_429}
_FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError, EOFError)
_KEEP_ALIVE_S = 2.0
"""Seconds for which an idle connection stays open: a host's images are requested close together, and open files are few
(usually 1,024)."""


@dataclass(frozen=True)
class Response:
    """A successful response."""

    body: bytes
    """Without Content-Encoding."""
    consent: str
    """What the host said about use."""


@dataclass(frozen=True)
class Redirect:
    """A response that leads to another URL."""

    location: str
    """The URL, which is not checked."""
    consent: str
    """What the host said about use."""
    cookies: str
    """The cookies of this attempt, as its next request sends them to the same host."""


@dataclass
class _Sent:
    """How a request was sent."""

    on_idle_connection: bool = False
    """Whether its last connection had been used before."""


def _trace_connections() -> aiohttp.TraceConfig:
    """Returns what tells a request's `_Sent` which connection it takes."""

    async def reuse(_session: object, context: SimpleNamespace, _parameters: object) -> None:
        context.trace_request_ctx.on_idle_connection = True

    async def create(_session: object, context: SimpleNamespace, _parameters: object) -> None:
        context.trace_request_ctx.on_idle_connection = False

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(reuse)
    trace.on_connection_create_start.append(create)
    return trace


class Fetcher:
    """A session with one connector and one TLS context for all requests of a part.

    Used as `async with Fetcher(config) as fetcher`.
    """

    def __init__(self, config: ScrapeConfig) -> None:
        """Stores the config; entering the context opens the session."""
        self._config = config

    async def __aenter__(self) -> Self:
        config = self._config
        self._resolver = PublicResolver(system_resolver(), allow_private_addresses=config.allow_private_addresses)
        connector = LenientConnector(
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
                # by default aiohttp accepts whatever it finds a library for, and deflate, which has two forms
                "Accept-Encoding": "gzip",
            },
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # decompressed here, within max_bytes
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            trace_configs=[_trace_connections()],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, url: URL, timeout_s: float, cookies: str = "") -> Response | Redirect:
        """Requests an image once.

        Every redirect is a request of its own, so that each URL is checked and queued for its host like the first: a
        public URL may redirect to a private one.

        Args:
            url: a checked URL.
            timeout_s: seconds until the whole body must be read.
            cookies: those that the host set when it redirected to this URL. No others are ever sent.

        Raises:
            RowDropped: with any of the statuses of the network and the response.
        """
        headers = {"Cookie": cookies} if cookies else {}
        if self._config.referer == "site":
            headers["Referer"] = f"{url.origin()}/"
        async with self._request(url, timeout_s, headers) as response:
            if response.status in _REDIRECTS and "Location" in response.headers:
                consent = self._check_consent(response)
                location = join_url(url, response.headers["Location"])
                return Redirect(location, consent, add_cookies(cookies, response.headers.getall("Set-Cookie", [])))
            return await self._read(response)

    async def fetch_prefix(self, url: URL, max_bytes: int) -> bytes | str:
        """Requests a robots.txt.

        Returns:
            Its first bytes, or the URL that it redirects to.

        Raises:
            RowDropped: as `fetch`; http_429 and http_5xx for a host that is unavailable for now.
        """
        async with self._request(url, self._config.timeout_s) as response:
            if response.status in _REDIRECTS and "Location" in response.headers:
                return join_url(url, response.headers["Location"])
            _check_status(response)
            decompress = decompressor(response.headers)
            body, received = bytearray(), 0
            async for chunk in response.content.iter_any():
                received += len(chunk)
                body += chunk if decompress is None else decompress(chunk, max_bytes + 1 - len(body))
                if max(len(body), received) > max_bytes:
                    break
            return bytes(body[:max_bytes])

    @asynccontextmanager
    async def _request(
        self, url: URL, timeout_s: float, headers: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yields the response, whatever its status; failures until the block ends are raised as RowDropped."""
        try:
            async with (
                asyncio.timeout(timeout_s),
                await self._send(url, headers) as response,
            ):
                yield response
        except TimeoutError as error:
            raise RowDropped(Status.TIMEOUT, self._timeout_detail(error)) from error
        except (*_FAILURES, ValueError) as error:
            raise RowDropped(*_network_status(error)) from error

    async def _send(self, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Sends the request, again wherever it went to an idle connection that the host had closed (RFC 9112, 9.3.1).

        aiohttp does so once, which may take another such connection.
        """
        while True:
            sent = _Sent()
            try:
                return await self._session.get(url, headers=headers, allow_redirects=False, trace_request_ctx=sent)
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if not sent.on_idle_connection:
                    raise

    def _timeout_detail(self, error: TimeoutError) -> str:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection in {self._config.connect_timeout_s:g} s"
        return f"not done in {self._config.timeout_s:g} s"

    def _check_consent(self, response: aiohttp.ClientResponse) -> str:
        consent = read_consent(response.headers)
        if consent.refused and self._config.respect_optout:
            raise RowDropped(Status.OPTED_OUT, consent.statement, consent=consent.statement)
        return consent.statement

    async def _read(self, response: aiohttp.ClientResponse) -> Response:
        _check_status(response)
        consent = self._check_consent(response)
        try:
            return Response(await self._read_body(response), consent)
        except RowDropped as dropped:
            dropped.consent = consent
            raise
        except TimeoutError:
            raise
        except _FAILURES as error:
            raise RowDropped(Status.SHORT_BODY, "the body broke off", consent=consent) from error

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes:
        max_bytes = self._config.max_bytes
        too_large = RowDropped(Status.TOO_LARGE, f"more than {max_bytes} bytes")
        if (response.content_length or 0) > max_bytes:
            raise too_large
        decompress = decompressor(response.headers)
        received, size, chunks = 0, 0, []
        async for chunk in response.content.iter_any():
            received += len(chunk)
            chunks.append(chunk if decompress is None else decompress(chunk, max_bytes + 1 - size))
            size += len(chunks[-1])
            if max(received, size) > max_bytes:
                raise too_large
        return b"".join(chunks)


def user_agent(contact: str) -> str:
    """Returns the User-Agent: the program, its version and, if given, whom to contact."""
    return f"{ROBOT}/{version('dreamloom')}" + (f" (+{contact})" if contact else "")


def _check_status(response: aiohttp.ClientResponse) -> None:
    if not 200 <= response.status < 300:
        status = _HTTP_STATUSES.get(response.status, Status.HTTP_5XX if response.status >= 500 else Status.HTTP_4XX)
        raise RowDropped(status, f"HTTP {response.status}", wait_s=retry_after(response.headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds of either form of Retry-After; None where it is missing or malformed."""
    value = headers.get("Retry-After", "").strip()
    if seconds := re.fullmatch(r"(\d{1,9})\d*(\.\d+)?", value):
        return float(seconds[1] + (seconds[2] or ""))
    until = parse_http_date(value)
    now = parse_http_date(headers.get("Date", "")) or datetime.now(UTC)  # the host's clock may differ from ours
    return None if until is None else max(0.0, (until - now).total_seconds())


def _network_status(error: Exception) -> tuple[Status, str]:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return resolver_error_status(error.os_error)
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
