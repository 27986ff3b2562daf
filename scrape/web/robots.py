"""robots.txt (RFC 9309): requested once per host, and obeyed.

Where the RFC leaves a choice, the more polite one is taken: 429 counts as a host that is unavailable for now, and
Crawl-delay, which the RFC does not define, is respected.

A part of an index has thousands of hosts, and parsed rules take several times the memory of their text. So the cache
holds compressed texts, and parsed rules only for the hosts used last.
"""

import asyncio
import codecs
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

from yarl import URL

from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.address import check_url
from dreamloom.scrape.web.optout import ROBOT
from dreamloom.scrape.web.outcome import RowDropped
from dreamloom.scrape.web.robots_rules import RobotsFile, parse_robots

MAX_BYTES = 500 * 1024
"""Maximum bytes read of a robots.txt (RFC 9309, 2.5)."""
MAX_REDIRECTS = 5
"""Maximum redirects followed to a robots.txt (RFC 9309, 2.3.1.2)."""
MAX_CRAWL_DELAY_S = 10.0
"""Maximum seconds of a Crawl-delay that are respected; with more, a host's thousand images would take a night."""
_LONG = 16 * 1024
"""Bytes of a robots.txt above which it is parsed, and paths are judged by it, in a thread."""
_MAX_CACHE_BYTES = 64 * 2**20
"""Maximum bytes of all compressed texts; beyond it, which takes malice, the cache is emptied."""

Answer = TypeVar("Answer")


class PrefixFetcher(Protocol):
    """Sends one request."""

    async def fetch_prefix(self, url: URL, max_bytes: int) -> bytes | str:
        """Returns the first bytes of a URL, or the URL that it redirects to, not checked. Raises RowDropped."""


@dataclass(frozen=True)
class RobotsRules:
    """The rules of a host's robots.txt for this program."""

    compressed: bytes | None = None
    """Text of the file; None: there is none, and everything is allowed."""
    size: int = 0
    """Bytes of the text."""
    unreadable: str | None = None
    """Why the file can't be read, so that its rules are unknown."""

    async def delay_s(self) -> float:
        """Returns the seconds between two requests."""
        if self.compressed is None:
            return 0.0
        return min(await self._run(self.compressed, lambda file: file.crawl_delay_s), MAX_CRAWL_DELAY_S)

    async def verdict(self, url: URL) -> str | None:
        """Returns the verdict on a URL, for the records; None where there is no robots.txt.

        Raises:
            RowDropped: opted_out where the URL or training on it is disallowed; unsupported where the file can't be
                read.
        """
        if self.unreadable is not None:
            raise RowDropped(Status.UNSUPPORTED, self.unreadable)
        if self.compressed is None:
            return None
        said = await self._run(self.compressed, lambda file: _verdict(file, url.raw_path_qs))
        if said != _ALLOWED:
            raise RowDropped(Status.OPTED_OUT, said, consent=said)
        return said

    async def _run(self, compressed: bytes, judge: Callable[[RobotsFile], Answer]) -> Answer:
        """Asks the parsed file: in a thread if it is long, as its text may have been chosen to take time."""
        if self.size > _LONG:
            return await asyncio.to_thread(lambda: judge(_parse_long(compressed)))
        return judge(_parse_short(compressed))


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
        return self._rules[origin]

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
                    return RobotsRules(zlib.compress(response), len(response))
                url = check_url(response, allow_private_addresses=self._allow_private_addresses)
        except RowDropped as dropped:
            if dropped.status in _MISSING:
                return RobotsRules()
            detail = f"robots.txt: {dropped.detail}"
            if dropped.status in _UNREADABLE:
                return RobotsRules(unreadable=detail)
            raise RowDropped(dropped.status, detail, wait_s=dropped.wait_s) from dropped
        return RobotsRules()


_MISSING = {
    *(Status.HTTP_403, Status.HTTP_404, Status.HTTP_410, Status.HTTP_4XX),  # RFC 9309, 2.3.1.3: unavailable
    *(Status.BAD_URL, Status.BAD_SCHEME, Status.PRIVATE_ADDRESS),  # the target of a redirect
}
_UNREADABLE = {Status.UNSUPPORTED, Status.TRUNCATED}  # an encoding that was not requested, or a broken one


_ALLOWED = "robots.txt: allowed"


def _verdict(file: RobotsFile, path: str) -> str:
    if not file.allows(path):
        return "robots.txt: disallowed"
    return _ALLOWED if file.allows_training(path) else "robots.txt: no training"


def _parse(compressed: bytes) -> RobotsFile:
    content = zlib.decompress(compressed)
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return parse_robots(content.decode(encoding, "replace"), ROBOT)


_parse_short = lru_cache(maxsize=256)(_parse)
_parse_long = lru_cache(maxsize=4)(_parse)  # at most some 10 MB each
