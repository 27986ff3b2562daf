"""Which addresses may be asked: http and https alone, and no machine that is not on the public internet.

An index is written by strangers, and a redirect by more of them. So an address is looked at three times: as text, as
the IP literal that its host may be, and as what its name resolves to. The connection then goes to the very address that
was looked at (the resolver hands out no other), so a name that changes its mind in between gains nothing.
"""

import ipaddress
import re
import socket

import aiodns
from aiohttp import AsyncResolver, ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.outcome import Dropped

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)
_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\.?$", re.IGNORECASE)
"""A host that ends so is an IPv4 address in some spelling, or nothing (WHATWG URL, 3.5)."""


def checked_url(text: str | None, *, allow_private_addresses: bool = False) -> URL:
    """An address as it can be asked for: percent-encoded, its name in punycode, without fragment and credentials.

    Raises:
        Dropped: bad_url, bad_scheme, or private_address where the host is an IP address that is not public.
    """
    try:
        url = URL((text or "").strip().replace("&amp;", "&"))
        scheme, host = url.scheme, url.raw_host
    except (ValueError, TypeError, IndexError) as error:  # the last of yarl's own, for "http://][@"
        raise Dropped(Status.BAD_URL, _brief(str(error))) from error
    if scheme and scheme not in ("http", "https"):
        raise Dropped(Status.BAD_SCHEME, scheme[:40])
    if not scheme or not host:
        raise Dropped(Status.BAD_URL, "no host" if scheme else "no scheme")
    literal = _literal(host)
    if literal is None and (len(host) > 253 or not _NAME.fullmatch(host)):
        raise Dropped(Status.BAD_URL, _brief(f"no host is called {host}"))
    if literal is not None:
        if not allow_private_addresses and not is_public(literal):
            raise Dropped(Status.PRIVATE_ADDRESS, host)
        url = url.with_host(str(literal))
    return url.with_user(None).with_fragment(None)


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host is, in any of the spellings that C's inet_aton reads (2130706433, 0x7f.1)."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if not _NUMBER.search(host):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    except (OSError, ValueError) as error:  # ValueError: it holds a NUL
        raise Dropped(Status.BAD_URL, _brief(f"no host is called {host}")) from error


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is of the public internet (IANA's special-purpose registries), also through IPv6's tunnels."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in ipaddress.IPv6Network("64:ff9b::/96"):  # NAT64
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(inner)
    return address in ipaddress.IPv6Network("2000::/3") and address.is_global


class PrivateAddress(OSError):
    """A name all of whose addresses are private."""


class PublicResolver(AbstractResolver):
    """Resolves names, and hands out public addresses only."""

    def __init__(self, resolver: AbstractResolver, *, allow_private_addresses: bool = False) -> None:
        self._resolver = resolver
        self._allow_private = allow_private_addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """As aiohttp's resolvers.

        Raises:
            PrivateAddress: none of its addresses is public.
            OSError: it can't be resolved.
        """
        answers = await self._resolver.resolve(host, port, family)
        public = [a for a in answers if self._allow_private or is_public(ipaddress.ip_address(a["host"]))]
        if answers and not public:
            raise PrivateAddress(host)
        return public

    async def close(self) -> None:
        """Closes the resolver behind it."""
        await self._resolver.close()


def system_resolver() -> AbstractResolver:
    """c-ares, which needs no thread for a name; the system's own where c-ares can't start."""
    try:
        return AsyncResolver()
    except (RuntimeError, OSError, aiodns.error.DNSError):
        return ThreadedResolver()


def resolver_status(error: OSError) -> tuple[Status, str]:
    """Whether a name does not exist, or could not be asked for just now, with a line about it."""
    if isinstance(error, PrivateAddress):
        return Status.PRIVATE_ADDRESS, str(error)
    cause = error.__cause__
    if isinstance(cause, aiodns.error.DNSError):
        unknown = (aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA, aiodns.error.ARES_EBADNAME)
        return _dns(cause.args[0] in unknown)
    return _dns(error.errno in (socket.EAI_NONAME, socket.EAI_NODATA))


def _dns(unknown: bool) -> tuple[Status, str]:
    return (Status.DNS_UNKNOWN, "no such name") if unknown else (Status.DNS_TEMPORARY, "the name server did not answer")


def _brief(text: str) -> str:
    return " ".join(text.split())[:100]
