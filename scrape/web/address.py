"""Checks which URLs may be requested: only http and https, and only hosts on the public internet.

An index is written by strangers, and redirects by further strangers. So a URL is checked three times: its text, the IP
literal that its host may be, and the addresses that its name resolves to. The connection goes to the very address that
was checked (the resolver returns no other), so a name that resolves differently in between gains nothing.
"""

import ipaddress
import re
import socket
import string
from urllib.parse import quote, urljoin, urlsplit

import aiodns
from aiohttp import AsyncResolver, ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from dreamloom.base.text import brief
from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.outcome import RowDropped

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)
_AROUND = string.whitespace + "\0\u00a0\u200b\ufeff\"'<>"
"""What lists of addresses have around some: blanks, marks of a byte order, quotes."""
_LONE_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")
_URL_CHARACTERS = "%:/?[]@!$&'()*+,;="
"""What a path or a query may hold beside letters, digits and "-._~"; browsers also leave brackets as they are."""
_SCHEME = re.compile(r"^(https?):/*(?=[^/])", re.IGNORECASE)
"""The beginning of a URL, whose host follows however many slashes there are (WHATWG URL, 4.4)."""
_PORT = re.compile(r"^(?:.*@)?(?:\[[^\]]*\]|[^:\[\]]*)(?::[0-9]*)?$", re.ASCII)
"""What precedes a path, with a port that a URL may have: int() reads more."""
_BEFORE_QUERY = re.compile(r"^[^?#]*")
_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\.?$", re.IGNORECASE)
"""The end of a host that is an IPv4 address in some spelling, or invalid (WHATWG URL, 3.5)."""


def check_url(text: str | None, *, allow_private_addresses: bool = False, of_index: bool = True) -> URL:
    """Makes a URL for a request: host in punycode, without fragment and credentials, the rest as it is written.

    Escapes stay as they are, as signed URLs are signed with them; only what no URL may hold is percent-encoded.

    Args:
        text: the URL.
        allow_private_addresses: whether it may be one of this machine or network.
        of_index: whether it was taken from pages, in whose text & is &amp;; else it is a host's redirect.

    Raises:
        RowDropped: bad_url, bad_scheme, or private_address where the host is an IP address that is not public.
    """
    try:
        text = (text or "").strip(_AROUND)
        text = _SCHEME.sub(r"\1://", _with_slashes(text.replace("&amp;", "&") if of_index else text))
        url = URL(text)
        scheme, host = url.scheme, url.raw_host
        target = urlsplit(text)
        path, query = _quote(target.path), _quote(target.query)
    except (ValueError, TypeError, IndexError) as error:  # yarl raises IndexError for "http://][@"
        raise RowDropped(Status.BAD_URL, brief(error, 100)) from error
    if scheme and scheme not in ("http", "https"):
        raise RowDropped(Status.BAD_SCHEME, scheme[:40])
    if not scheme or not host:
        raise RowDropped(Status.BAD_URL, "no host" if scheme else "no scheme")
    if not _PORT.search(target.netloc):
        raise RowDropped(Status.BAD_URL, "its port is no number")
    address = _parse_ip(host)
    if address is None and (len(host) > 253 or not _NAME.fullmatch(host)):
        raise RowDropped(Status.BAD_URL, brief(f"no host is called {host}", 100))
    if address is not None:
        if not allow_private_addresses and not is_public(address):
            raise RowDropped(Status.PRIVATE_ADDRESS, host)
        host = str(address)
    authority = f"[{host}]" if ":" in host else host
    port = "" if url.explicit_port is None else f":{url.explicit_port}"
    return URL.build(scheme=scheme, authority=f"{authority}{port}", path=path or "/", query_string=query, encoded=True)


def join_url(base: URL, location: str) -> str:
    """Returns the URL to which a redirect leads, not checked; a back slash is a slash, as browsers have it.

    Raises:
        ValueError: it is none.
    """
    return urljoin(str(base), _with_slashes(location.strip(_AROUND)))


def _with_slashes(text: str) -> str:
    """Returns a URL with slashes for the back slashes before its query, as browsers read it (WHATWG URL, 4.4)."""
    return _BEFORE_QUERY.sub(lambda match: match[0].replace("\\", "/"), text, count=1)


def _quote(text: str) -> str:
    """Percent-encodes what no URL may hold (RFC 3986, 2), and % where it begins no escape.

    Raises:
        ValueError: the text holds half of a surrogate pair.
    """
    # surrogateescape: bytes of a Location that is not UTF-8
    return quote(_LONE_PERCENT.sub("%25", text), safe=_URL_CHARACTERS, errors="surrogateescape")


def _parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parses a host that is an IP address, in any spelling that C's inet_aton reads (2130706433, 0x7f.1)."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if not _NUMBER.search(host):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    except (OSError, ValueError) as error:  # ValueError: the host holds a NUL
        raise RowDropped(Status.BAD_URL, brief(f"no host is called {host}", 100)) from error


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is on the public internet (IANA's special-purpose registries), also inside IPv6 tunnels."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in ipaddress.IPv6Network("64:ff9b::/96"):  # NAT64
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(inner)
    return address in ipaddress.IPv6Network("2000::/3") and address.is_global


class PrivateAddressError(OSError):
    """A name that resolves to private addresses only."""


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only."""

    def __init__(self, resolver: AbstractResolver, *, allow_private_addresses: bool = False) -> None:
        """Wraps a resolver.

        Args:
            resolver: resolves the names.
            allow_private_addresses: whether private addresses are returned, too.
        """
        self._resolver = resolver
        self._allow_private_addresses = allow_private_addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolves a name, as aiohttp's resolvers do.

        Raises:
            PrivateAddressError: all its addresses are private.
            OSError: the name can't be resolved.
        """
        answers = await self._resolver.resolve(host, port, family)
        public = [a for a in answers if self._allow_private_addresses or is_public(ipaddress.ip_address(a["host"]))]
        if answers and not public:
            raise PrivateAddressError(host)
        return public

    async def close(self) -> None:
        """Closes the wrapped resolver."""
        await self._resolver.close()


def system_resolver() -> AbstractResolver:
    """Returns a resolver by c-ares, which needs no thread per name; the system's own where c-ares can't start."""
    try:
        return AsyncResolver()
    except (RuntimeError, OSError, aiodns.error.DNSError):
        return ThreadedResolver()


def resolver_error_status(error: OSError) -> tuple[Status, str]:
    """Returns the status and detail of a resolver's error: an unknown name, or one that can't be resolved for now."""
    if isinstance(error, PrivateAddressError):
        return Status.PRIVATE_ADDRESS, str(error)
    cause = error.__cause__
    if isinstance(cause, aiodns.error.DNSError):
        unknown = (aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA, aiodns.error.ARES_EBADNAME)
        return _dns_status(cause.args[0] in unknown)
    return _dns_status(error.errno in (socket.EAI_NONAME, socket.EAI_NODATA))


def _dns_status(unknown: bool) -> tuple[Status, str]:
    return (Status.DNS_UNKNOWN, "no such name") if unknown else (Status.DNS_TEMPORARY, "the name server did not answer")
