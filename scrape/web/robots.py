"""robots.txt (RFC 9309): asked once of each host, and obeyed.

What the RFC leaves open is done as it is kindest: 429 counts as a host that can't be asked just now, and Crawl-delay,
which it does not know, is heeded.

A part of an index has thousands of hosts, and rules that are parsed take 25 times the memory of their text. So what is
kept of each is its text, packed, and of those asked last, the rules.
"""

import asyncio
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from protego import Protego
from yarl import URL

from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.address import checked_url
from dreamloom.scrape.web.optout import ROBOT
from dreamloom.scrape.web.outcome import Dropped

MOST_BYTES = 500 * 1024
"""What of a robots.txt is read (RFC 9309, 2.5)."""
REDIRECTS = 5
"""Followed to a robots.txt (RFC 9309, 2.3.1.2)."""
LONGEST_DELAY_S = 10.0
"""What of a Crawl-delay is heeded: at more than that, a host's thousand images would take a night."""
_LONG = 8 * 1024
"""Bytes of a packed robots.txt, some five times as much as text, that is parsed in a thread."""
_MOST_KEPT = 64 * 2**20
"""Bytes of all that are packed; beyond it, which takes malice, all are forgotten, and asked for anew."""


class Asker(Protocol):
    """Fetches one address, once."""

    async def beginning(self, address: URL, most: int) -> bytes | str:
        """The first bytes of an address, or the address to which it has moved, not checked. Raises Dropped."""


@dataclass(frozen=True)
class Rules:
    """What a host's robots.txt says to this program."""

    packed: bytes | None
    """None: there is none, and all is allowed."""
    unreadable: str | None = None
    """Why it can't be read, so that nobody knows what is allowed."""

    @property
    def delay_s(self) -> float:
        """Seconds from one request to the next."""
        delay = _parsed(self.packed).crawl_delay(ROBOT) if self.packed else None
        return min(delay or 0.0, LONGEST_DELAY_S)

    def verdict(self, address: URL) -> str | None:
        """What it says of an address, for the records; None where there is no robots.txt.

        Raises:
            Dropped: opted_out, or unsupported where it can't be read.
        """
        if self.unreadable is not None:
            raise Dropped(Status.UNSUPPORTED, self.unreadable)
        if self.packed is None:
            return None
        if _parsed(self.packed).can_fetch(str(address), ROBOT):
            return "robots.txt: allowed"
        raise Dropped(Status.OPTED_OUT, "robots.txt: disallowed", consent="robots.txt: disallowed")


class Robots:
    """The rules of every host that was asked. For one event loop."""

    def __init__(self, asker: Asker, *, allow_private_addresses: bool) -> None:
        self._asker = asker
        self._allow_private = allow_private_addresses
        self._rules: dict[URL, Rules] = {}
        self._kept = 0  # bytes of their texts
        self._asked: dict[URL, asyncio.Lock] = {}

    async def rules(self, address: URL) -> Rules:
        """The rules of an address's host.

        Raises:
            Dropped: the host can't be asked just now, so nothing of it may be fetched (RFC 9309, 2.3.1.4). The next
                call tries again.
        """
        origin = address.origin()
        if origin not in self._rules:
            async with self._asked.setdefault(origin, asyncio.Lock()):
                if origin not in self._rules:
                    self._keep(origin, await self._ask(origin))
            self._asked.pop(origin, None)
        rules = self._rules[origin]
        if rules.packed is not None and len(rules.packed) > _LONG:
            await asyncio.to_thread(_parsed, rules.packed)
        return rules

    def _keep(self, origin: URL, rules: Rules) -> None:
        self._kept += len(rules.packed or b"")
        if self._kept > _MOST_KEPT:
            self._kept = len(rules.packed or b"")
            self._rules.clear()
        self._rules[origin] = rules

    async def _ask(self, origin: URL) -> Rules:
        address = origin / "robots.txt"
        try:
            for _ in range(REDIRECTS + 1):
                got = await self._asker.beginning(address, MOST_BYTES)
                if isinstance(got, bytes):
                    return Rules(zlib.compress(got))
                address = checked_url(got, allow_private_addresses=self._allow_private)
        except Dropped as dropped:
            if dropped.status in _NONE:
                return Rules(None)
            why = f"robots.txt: {dropped.detail}"
            if dropped.status in _UNREADABLE:
                return Rules(None, unreadable=why)
            raise Dropped(dropped.status, why, wait_s=dropped.wait_s) from dropped
        return Rules(None)


_NONE = {
    *(Status.HTTP_403, Status.HTTP_404, Status.HTTP_410, Status.HTTP_4XX),  # RFC 9309, 2.3.1.3: unavailable
    *(Status.BAD_URL, Status.BAD_SCHEME, Status.PRIVATE_ADDRESS),  # where a redirect leads
}
_UNREADABLE = {Status.UNSUPPORTED, Status.TRUNCATED}  # packed otherwise than was asked for, or not as it says


def _parsed(packed: bytes) -> Protego:
    return _parse_long(packed) if len(packed) > _LONG else _parse_short(packed)


def _parse(packed: bytes) -> Protego:
    return Protego.parse(zlib.decompress(packed).decode("utf-8-sig", "replace"))


_parse_short = lru_cache(maxsize=256)(_parse)
_parse_long = lru_cache(maxsize=4)(_parse)  # of 13 MB at most
