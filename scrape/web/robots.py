"""robots.txt (RFC 9309): requested once per host, and obeyed.

Where the RFC leaves a choice, the more polite one is taken: 429 counts as a host that is unavailable for now, and
Crawl-delay, which the RFC does not define, is respected.

A part of an index has thousands of hosts, and parsed rules take 25 times the memory of their text. So the cache holds
compressed texts, and parsed rules only for the hosts used last.
"""

import asyncio
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from protego import Protego
from yarl import URL

from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.address import check_url
from dreamloom.scrape.web.optout import ROBOT
from dreamloom.scrape.web.outcome import RowDropped

MAX_BYTES = 500 * 1024
"""Maximum bytes read of a robots.txt (RFC 9309, 2.5)."""
MAX_REDIRECTS = 5
"""Maximum redirects followed to a robots.txt (RFC 9309, 2.3.1.2)."""
MAX_CRAWL_DELAY_S = 10.0
"""Maximum seconds of a Crawl-delay that are respected; with more, a host's thousand images would take a night."""
_LONG = 8 * 1024
"""Bytes of a compressed robots.txt, about a fifth of its text, above which it is parsed in a thread."""
_MAX_CACHE_BYTES = 64 * 2**20
"""Maximum bytes of all compressed texts; beyond it, which takes malice, the cache is emptied."""


class PrefixFetcher(Protocol):
    """Sends one request."""

    async def fetch_prefix(self, url: URL, max_bytes: int) -> bytes | str:
        """Returns the first bytes of a URL, or the URL that it redirects to, not checked. Raises RowDropped."""


@dataclass(frozen=True)
class RobotsRules:
    """The rules of a host's robots.txt for this program."""

    compressed: bytes | None
    """Text of the file; None: there is none, and everything is allowed."""
    unreadable: str | None = None
    """Why the file can't be read, so that its rules are unknown."""

    @property
    def delay_s(self) -> float:
        """Seconds between two requests."""
        delay = _parse(self.compressed).crawl_delay(ROBOT) if self.compressed else None
        return min(delay or 0.0, MAX_CRAWL_DELAY_S)

    def verdict(self, url: URL) -> str | None:
        """Returns the verdict on a URL, for the records; None where there is no robots.txt.

        Raises:
            RowDropped: opted_out where the URL is disallowed; unsupported where the file can't be read.
        """
        if self.unreadable is not None:
            raise RowDropped(Status.UNSUPPORTED, self.unreadable)
        if self.compressed is None:
            return None
        if _parse(self.compressed).can_fetch(str(url), ROBOT):
            return "robots.txt: allowed"
        raise RowDropped(Status.OPTED_OUT, "robots.txt: disallowed", consent="robots.txt: disallowed")


class RobotsCache:
    """The rules of all hosts that were requested. For one event loop."""

    def __init__(self, fetcher: PrefixFetcher, *, allow_private_addresses: bool) -> None:
        """Creates an empty cache.

        Args:
            fetcher: sends the requests.
            allow_private_addresses: whether redirects may lead to private addresses.
        """
        self._fetcher = fetcher
        self._allow_private_addresses = allow_private_addresses
        self._rules: dict[URL, RobotsRules] = {}
        self._num_bytes = 0  # of the compressed texts
        self._locks: dict[URL, asyncio.Lock] = {}  # origins that are being requested

    async def rules(self, url: URL) -> RobotsRules:
        """Returns the rules of a URL's host, requesting them at first use.

        Raises:
            RowDropped: the host is unavailable for now, so nothing of it may be fetched (RFC 9309, 2.3.1.4). The next
                call tries again.
        """
        origin = url.origin()
        if origin not in self._rules:
            async with self._locks.setdefault(origin, asyncio.Lock()):
                if origin not in self._rules:
                    self._add(origin, await self._fetch(origin))
            self._locks.pop(origin, None)
        rules = self._rules[origin]
        if rules.compressed is not None and len(rules.compressed) > _LONG:
            await asyncio.to_thread(_parse, rules.compressed)
        return rules

    def _add(self, origin: URL, rules: RobotsRules) -> None:
        self._num_bytes += len(rules.compressed or b"")
        if self._num_bytes > _MAX_CACHE_BYTES:
            self._num_bytes = len(rules.compressed or b"")
            self._rules.clear()
        self._rules[origin] = rules

    async def _fetch(self, origin: URL) -> RobotsRules:
        url = origin / "robots.txt"
        try:
            for _ in range(MAX_REDIRECTS + 1):
                response = await self._fetcher.fetch_prefix(url, MAX_BYTES)
                if isinstance(response, bytes):
                    return RobotsRules(zlib.compress(response))
                url = check_url(response, allow_private_addresses=self._allow_private_addresses)
        except RowDropped as dropped:
            if dropped.status in _MISSING:
                return RobotsRules(None)
            detail = f"robots.txt: {dropped.detail}"
            if dropped.status in _UNREADABLE:
                return RobotsRules(None, unreadable=detail)
            raise RowDropped(dropped.status, detail, wait_s=dropped.wait_s) from dropped
        return RobotsRules(None)


_MISSING = {
    *(Status.HTTP_403, Status.HTTP_404, Status.HTTP_410, Status.HTTP_4XX),  # RFC 9309, 2.3.1.3: unavailable
    *(Status.BAD_URL, Status.BAD_SCHEME, Status.PRIVATE_ADDRESS),  # the target of a redirect
}
_UNREADABLE = {Status.UNSUPPORTED, Status.TRUNCATED}  # an encoding that was not requested, or a broken one


def _parse(compressed: bytes) -> Protego:
    return _parse_long(compressed) if len(compressed) > _LONG else _parse_short(compressed)


def _parse_text(compressed: bytes) -> Protego:
    return Protego.parse(zlib.decompress(compressed).decode("utf-8-sig", "replace"))


_parse_short = lru_cache(maxsize=256)(_parse_text)
_parse_long = lru_cache(maxsize=4)(_parse_text)  # at most 13 MB each
