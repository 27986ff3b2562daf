"""Answers that browsers and urllib read are read, and do not count against their host."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.scrape.collection import Collection
from dreamloom.scrape.web.response_head import clean_head, is_interim

OK = b"HTTP/1.1 200 OK\r\n"


def raw(*chunks: bytes) -> Callable[[web.Request], Any]:
    """Answers with these bytes, and ends the connection."""

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        for chunk in chunks:
            request.transport.write(chunk)  # type: ignore[attr-defined]
        request.transport.close()
        return web.Response()

    return answer


def heads(image: bytes) -> list[bytes]:
    """Whole answers whose heads have faults."""
    length = b"Content-Length: %d\r\n" % len(image)
    chunked = b"%x\r\n" % len(image) + image + b"\r\n0\r\n\r\n"
    end = b"\r\n" + image
    return [
        OK + length + length + end,
        OK + b"Content-Length: %d, %d\r\n" % (len(image), len(image)) + end,
        OK + length + b"Transfer-Encoding: chunked\r\n\r\n" + chunked,
        OK + b"Transfer-Encoding: Chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
        OK + b"Transfer-Encoding: identity\r\n" + length + end,
        OK + b"Content-Length : %d\r\n" % len(image) + end,
        OK + b"X Frame Options: none\r\nContent(Type): x\r\n" + length + end,
        OK + b"a line without a colon\r\n" + length + end,
        OK + b": no name\r\n" + length + end,
        OK + b"Content-Security-Policy: " + b"x" * 60_000 + b"\r\n" + length + end,
        OK + b"X-Long: y\r\n" * 500 + length + end,
        OK + b"X-Odd: \0\x01\xff\x7f\r\n" + length + end,
        OK + b"X-Folded: a\r\n b: c\r\n\td\r\n" + length + end,
        OK + b"Content-Length: many\r\n" + end,
        OK + b"Content-Length: -1\r\n" + end,
        OK + b"Content-Length:\r\n" + end,
        b"\r\n\r\n" + OK + length + end,
        b"HTTP/1.1 200\r\n" + length + end,
        b"HTTP/1.1  200 OK\r\n" + length + end,
        b"HTTP/1.2\t0200\tOK\r\n" + length + end,
        b"HTTP/2 200\r\n" + length + end,
        b"http/1.0 200 ok\r\n" + length + end,
        b"ICY 200 OK\r\n" + length + end,
        OK + b"Content-Length: " + b"0" * 5000 + b"%d\r\n" % len(image) + end,
        (OK + length + b"\r\n").replace(b"\r", b"") + image,
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK + length + end,
    ]


def test_heads_that_others_read(site: Any, collection: Collection) -> None:
    """More of them than failures that a host may have in a row."""
    urls = [site.handle(f"/{n}", raw(heads(site.image(n))[n])) for n in range(len(heads(b"")))]
    rows = site.scraped(collection, urls, max_host_failures=2)
    assert [(row["status"], row["detail"]) for row in rows] == [("ok", None)] * len(urls)


def test_a_head_may_come_in_any_pieces(site: Any, collection: Collection) -> None:
    image = site.image(1)
    answer = OK + b"Content-Length: %d\r\nX-Robots-Tag:\r\n  noai\r\n\r\n" % len(image) + image
    urls = [site.handle(f"/{n}", raw(answer[:n], answer[n : n + 1], answer[n + 1 :])) for n in range(1, 80, 3)]
    rows = site.scraped(collection, urls)
    assert {(row["status"], row["consent"]) for row in rows} == {("opted_out", "x-robots-tag: noai")}


@pytest.mark.parametrize(
    "head",
    [
        OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        OK + b"X: y\r\n" * 70_000 + b"\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 twohundred OK\r\n\r\n",
        b"\0\r\n\r\n",
        b"\n" * 300_000,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 21 + OK + b"Content-Length: 0\r\n\r\n",
    ],
    ids=[
        "a line without end",
        "lines without end",
        "two lengths",
        "no code",
        "no HTTP",
        "nothing without end",
        "hints without end",
    ],
)
def test_heads_that_nobody_reads(site: Any, collection: Collection, head: bytes) -> None:
    (row,) = site.scraped(collection, [site.handle("/a", raw(head))])
    assert row["status"] == "connection"


def test_a_connection_is_used_again_after_such_a_head(site: Any, collection: Collection) -> None:
    connections: set[object] = set()

    def odd(image: bytes) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            connections.add(request.transport)
            return web.Response(body=image, headers={"X-Any": "x" * 9000})

        return answer

    urls = [site.handle(f"/{n}", odd(site.image(n))) for n in range(6)]
    rows = site.scraped(collection, urls, concurrency=1)
    assert ({row["status"] for row in rows}, len(connections)) == ({"ok"}, 1)


def test_connections_that_the_host_has_closed_lose_no_image(site: Any, collection: Collection) -> None:
    """Each takes one request and breaks off at the second, as a host does that closes idle ones meanwhile."""
    at_once = 4
    asked: Counter[object] = Counter()
    images = [site.image(n) for n in range(3 * at_once)]
    opened = asyncio.Event()

    def once(image: bytes) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            asked[request.transport] += 1
            if asked[request.transport] == 2:
                request.transport.abort()  # type: ignore[attr-defined]
            elif len(asked) >= at_once:
                opened.set()
            await opened.wait()
            return web.Response(body=image)

        return answer

    urls = [site.handle(f"/{n}", once(image)) for n, image in enumerate(images)]
    rows = site.scraped(collection, urls, concurrency=at_once, concurrency_per_host=at_once)
    assert [row["status"] for row in rows] == ["ok"] * len(urls)
    assert max(asked.values()) == 2


@pytest.mark.parametrize(
    "encoding", ["aws-chunked", "utf-8", "none", "binary", "image/jpeg", "UTF-8, identity", "", "8bit"]
)
def test_an_encoding_that_is_none_is_none(site: Any, collection: Collection, encoding: str) -> None:
    urls = [site.put("/a", site.image(1), headers={"Content-Encoding": encoding})]
    robots = {"Content-Encoding": encoding}
    site.put("/robots.txt", b"User-agent: *\nDisallow: /no\n", headers=robots)
    rows = site.scraped(collection, [*urls, f"{site.url}/no"])
    assert [row["status"] for row in rows] == ["ok", "opted_out"]


@given(st.binary(max_size=300) | st.text("HTP/1.0 2:\r\n\t,clchunked-", max_size=80).map(str.encode))
def test_any_head(head: bytes) -> None:
    is_interim(head)
    cleaned = clean_head(head)
    assert cleaned.endswith(b"\r\n\r\n") and b"\0" not in cleaned.partition(b"\r\n")[2]
    assert clean_head(cleaned[:-4]) == cleaned
