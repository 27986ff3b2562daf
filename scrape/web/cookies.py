"""Cookies that a host sets on the way to an image, for the next request of the same attempt."""

from collections.abc import Iterable

from yarl import URL

_MAX_COOKIE_LENGTH = 4096
"""Maximum characters of the cookies of an attempt (RFC 6265, 6.1)."""


def add_cookies(cookies: str, set_cookies: Iterable[str]) -> str:
    """Returns the Cookie header "a=1; b=2" with those of some Set-Cookie headers, as far as it stays short."""
    values = dict(cookie.split("=", 1) for cookie in cookies.split("; ") if cookie)
    for header in set_cookies:
        name, separator, value = header.partition(";")[0].partition("=")
        if separator and name.strip() and name.isascii() and value.isascii() and (name + value).isprintable():
            values[name.strip()] = value.strip()
    added = "; ".join(f"{name}={value}" for name, value in values.items())
    return added if len(added) <= _MAX_COOKIE_LENGTH else cookies


def may_have_cookies_of(setter: URL, url: URL) -> bool:
    """Tells whether a URL is on the host that set cookies, and as safe."""
    return setter.raw_host == url.raw_host and (setter.scheme, url.scheme) != ("https", "http")
