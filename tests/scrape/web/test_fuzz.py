"""Whatever bytes strangers send, every reader of them answers: it raises nothing but the dropping of a row."""

import contextlib
import random
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from dreamloom.base.image_metadata import find_refusal
from dreamloom.scrape.web.address import check_url
from dreamloom.scrape.web.http import retry_after
from dreamloom.scrape.web.http_dates import parse_http_date
from dreamloom.scrape.web.optout import read_consent
from dreamloom.scrape.web.outcome import RowDropped
from dreamloom.scrape.web.robots_rules import parse_robots

DATE = "unavailable_after: Mon, 01 Jan 99999999999999999999 00:00:00 GMT"


def read_headers(data: bytes) -> None:
    """As aiohttp gives them: bytes that are not UTF-8 as surrogates."""
    text = data.decode("utf-8", "surrogateescape")
    names = ("X-Robots-Tag", "TDM-Reservation", "Retry-After", "Date")
    headers = CIMultiDictProxy(CIMultiDict((name, text) for name in names))
    assert len(read_consent(headers).statement) <= 300
    assert (retry_after(headers) or 0.0) >= 0.0
    parse_http_date(text)


def read_robots(data: bytes) -> None:
    text = data.decode("utf-8-sig", "replace")
    robots = parse_robots(text, "dreamloom")
    robots.allows("/" + data.decode("latin-1"))
    assert 0.0 <= robots.crawl_delay_s < float("inf")


def read_address(data: bytes) -> None:
    for text in (data.decode("utf-8", "surrogateescape"), data.decode("latin-1")):
        with contextlib.suppress(RowDropped):
            url = check_url(text)
            str(url).encode("ascii")
            assert not set(url.raw_path_qs) & set(" \r\n\t\0#")


def read_image(data: bytes) -> None:
    find_refusal(data)


READERS: list[tuple[Callable[[bytes], None], list[bytes]]] = [
    (
        read_headers,
        [
            DATE.encode(),
            b"unavailable_after: Sat, 01 Jan 2022 00:00:00 GMT, noai",
            b"dreamloom: noai, otherbot: a:b:c, max-snippet: 20",
            b"Saturday, 01-Jan-22 00:00:00 GMT",
            b"2022-01-01T00:00:00+99:99",
            b"86400",
        ],
    ),
    (
        read_robots,
        [
            b"\xef\xbb\xbfUser-agent: *\nDisallow: /a*b$\nAllow: /%e4/%7E\nCrawl-delay: 1e999\n",
            b"User-agent: dreamloom\nUser-agent: *\rCrawl-delay: nan\r\nDisallow: /*?*x=$y\nSitemap: http://h.org/\n",
        ],
    ),
    (
        read_address,
        [
            b"http://user@h.org:8080/a%2Fb/../c?x=%e4&amp;y=[z]#top",
            "https://bücher.de/日本/100%.jpg?ü".encode(),
            b"http://[::ffff:127.0.0.1]:99999/",
            b"http://0x7f.1/\x00",
        ],
    ),
    (
        read_image,
        [
            b"plus:DataMining='http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING'",
            b"c2pa.training-mining xx c2pa.ai_training.use.notAllowed",
        ],
    ),
]


@pytest.mark.parametrize("reader", [reader for reader, _ in READERS])
def test_any_bytes(reader: Callable[[bytes], None]) -> None:
    @given(st.binary(max_size=200) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "surrogatepass")))
    def read(data: bytes) -> None:
        reader(data)

    read()


@given(st.text(max_size=60))
@example("Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
@example("9" * 5000)
@example("Fri, 31 Dec 9999 23:59:59 -2300")
def test_any_date(text: str) -> None:
    parse_http_date(text)


@pytest.mark.slow
def test_many_that_are_almost_right() -> None:
    dice = random.Random(7)
    pieces = [
        b"%",
        b"*",
        b"$",
        b":",
        b",",
        b"\0",
        b"\xff",
        b"9" * 30,
        b"\n",
        b"//",
        b"[",
        b"]",
        b"@",
        b"..",
        b" ",
        b"-",
    ]
    for reader, seeds in READERS:
        for _ in range(60_000):
            data = bytearray(dice.choice(seeds))
            for _ in range(dice.randint(1, 4)):
                place = dice.randrange(len(data) + 1)
                data[place : place + dice.randint(0, 3)] = (
                    dice.choice(pieces) if dice.random() < 0.7 else dice.randbytes(2)
                )
            reader(bytes(data))
