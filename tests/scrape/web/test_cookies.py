"""Cookies go to the host that set them, and stay short."""

import pytest
from yarl import URL

from dreamloom.scrape.web.cookies import add_cookies, may_have_cookies_of


@pytest.mark.parametrize(
    ("setter", "url", "may"),
    [
        ("https://h.org/a", "https://h.org/b", True),
        ("http://h.org/a", "https://h.org:8443/b", True),
        ("https://h.org/a", "http://h.org/b", False),
        ("https://h.org/a", "https://www.h.org/b", False),
    ],
)
def test_cookies_go_to_their_host_alone_and_not_in_the_clear(setter: str, url: str, may: bool) -> None:
    assert may_have_cookies_of(URL(setter), URL(url)) == may


def test_cookies_that_are_too_long_are_not_kept() -> None:
    assert add_cookies("a=1", ["b=" + "x" * 5000]) == "a=1"
    assert add_cookies("a=1", ["b=2; Path=/", "a=3"]) == "a=3; b=2"
