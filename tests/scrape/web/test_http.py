"""Fetching from a loopback server with the faults of the web: each has its status, and manners are kept."""

import asyncio
import gzip
import random
import zlib
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from bench.hostile_images import reserved_by_c2pa, reserved_by_iptc
from dreamloom.base.sharing.workers import Worker
from dreamloom.scrape.collection import Collection, Status
from dreamloom.scrape.web.address import is_public
from dreamloom.scrape.web.scrape import scrape

Row = dict[str, Any]


def statuses(rows: list[Row]) -> list[str]:
    return [row["status"] for row in rows]


# Answers and addresses


def test_what_hosts_answer(site: Any, collection: Collection) -> None:
    expected = {
        401: "4xx",
        403: "403",
        404: "404",
        410: "410",
        429: "429",
        451: "4xx",
        500: "5xx",
        503: "5xx",
        304: "4xx",
    }
    urls = [site.put(f"/{code}", b"sorry", code) for code in expected]
    rows = site.scraped(collection, urls)
    assert [row["status"] for row in rows] == [f"http_{status}" for status in expected.values()]
    assert [row["detail"] for row in rows] == [f"HTTP {code}" for code in expected]
    assert all(row["image"] is None and row["text_kind"] == "alt" for row in rows)


def test_any_answer_of_success_is_one(site: Any, collection: Collection) -> None:
    urls = [site.put(f"/{code}", site.image(code), code) for code in (200, 201, 203, 206, 226)]
    assert statuses(site.scraped(collection, urls)) == ["ok"] * len(urls)


def test_addresses_that_are_not_asked(site: Any, collection: Collection) -> None:
    urls = [None, "", "not a url", "file:///etc/passwd", "ftp://127.0.0.1/x", site.put("/good", site.image(1))]
    assert statuses(site.scraped(collection, urls)) == ["bad_url"] * 3 + ["bad_scheme"] * 2 + ["ok"]


def test_private_addresses_are_refused_at_every_step(site: Any, collection: Collection) -> None:
    image = site.put("/image", site.image(1))
    urls = [image, image.replace("127.0.0.1", "localhost"), "http://169.254.169.254/latest/meta-data/"]
    urls += [f"http://[::ffff:127.0.0.1]:{site.port}/image", f"http://2130706433:{site.port}/image"]
    assert statuses(site.scraped(collection, urls, allow_private_addresses=False)) == ["private_address"] * 5
    assert sum(site.hits.values()) == 0


def test_redirects(site: Any, collection: Collection) -> None:
    def moved(path: str, to: str, code: int = 302) -> str:
        return str(site.put(path, status=code, headers={"Location": to}))

    site.put("/a b/ä.jpg", site.image(1))
    urls = [moved(f"/{code}", "/a b/ä.jpg", code) for code in (301, 302, 303, 307, 308)]
    urls += [moved("/loop", "/loop"), moved("/file", "file:///etc/passwd"), moved("/nothing", "http://a..b/")]
    urls += [moved("/far", "/301"), moved("/ftp", "ftp://h.org/"), moved("/relative", "../302")]
    rows = site.scraped(collection, urls, max_placeholder_copies=None)
    assert [r["status"] for r in rows[:5]] == ["ok", "duplicate", "duplicate", "duplicate", "duplicate"]
    expected = ["too_many_redirects", "bad_scheme", "bad_url", "duplicate", "bad_scheme", "duplicate"]
    assert [r["status"] for r in rows[5:]] == expected
    assert site.hits["/loop"] == site.config.max_redirects + 1


def test_what_hosts_say_on_the_way_is_recorded_of_each(site: Any, collection: Collection) -> None:
    steps = {"/a": ("noarchive", "/b"), "/b": ("nosnippet", "/c"), "/c": ("notranslate", "/d")}
    for path, (said, to) in steps.items():
        site.put(path, status=302, headers={"Location": to, "X-Robots-Tag": said})
    site.put("/d", site.image(1))
    (row,) = site.scraped(collection, [f"{site.url}/a"])
    assert row["consent"] == "; ".join(f"x-robots-tag: {said}" for said, _ in steps.values())


def test_an_attempt_has_one_deadline_and_a_retry_its_own(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted: list[float] = []

    def timeout(seconds: float) -> asyncio.Timeout:
        granted.append(seconds)
        return asyncio.timeout(seconds)

    async def busy_once(_: web.Request) -> web.StreamResponse:
        first = site.hits["/b"] == 1
        return web.Response(status=503, headers={"Retry-After": "0"}) if first else web.Response(body=site.image(1))

    monkeypatch.setattr("dreamloom.scrape.web.http.asyncio", SimpleNamespace(timeout=timeout))
    site.handle("/b", busy_once)
    url = site.put("/a", status=302, headers={"Location": "/b"})
    (row,) = site.scraped(collection, [url], respect_optout=False, retries=1, timeout_s=60)
    assert row["status"] == "ok"
    assert granted[::2] == [60, 60] and granted[1] < 60 and len(granted) == 3


def test_the_host_sees_addresses_as_the_index_and_the_redirect_have_them(site: Any, collection: Collection) -> None:
    seen: list[str] = []

    def page(path: str, headers: dict[str, str], status: int = 200) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            seen.append(request.raw_path)
            return web.Response(body=site.image(len(seen)), status=status, headers=headers)

        site.handle(path, answer)

    raw_target = "/b%2Fc%7E%281%29?Signature=x%2Fy%3D&q=%e4&amp;z"
    page("/a/(x)", {"Location": raw_target}, 302)
    page("/b/c~(1)", {})
    rows = site.scraped(collection, [f"{site.url}/a%2F%28x%29?k=%2B%e4&amp;m"])
    assert [row["status"] for row in rows] == ["ok"]
    assert seen == ["/a%2F%28x%29?k=%2B%e4&m", raw_target]


def test_a_redirect_to_a_private_address_is_not_followed(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this test's internet, 127.0.0.1 is a public address; all others are judged as they are."""
    monkeypatch.setattr("dreamloom.scrape.web.address.is_public", lambda ip: str(ip) == "127.0.0.1" or is_public(ip))
    targets = ["http://169.254.169.254/", "http://127.0.0.2/", "http://[::1]/", "http://0x7f.2/", "//10.0.0.1/x"]
    urls = [site.put(f"/{n}", status=301, headers={"Location": to}) for n, to in enumerate(targets)]
    urls.append(site.put("/good", site.image(1)))
    rows = site.scraped(collection, urls, allow_private_addresses=False)
    assert [row["status"] for row in rows] == ["private_address"] * 5 + ["ok"]


# Bodies


async def body_of(request: web.Request, data: bytes) -> None:
    """Writes raw bytes, headers and all, and ends the connection."""
    assert request.transport is not None
    request.transport.write(data)  # type: ignore[attr-defined]
    request.transport.close()


def raw(data: bytes) -> Callable[[web.Request], Any]:
    async def answer(request: web.Request) -> web.StreamResponse:
        await body_of(request, data)
        return web.Response()

    return answer


def test_bodies_that_break_off_or_are_too_large(site: Any, collection: Collection) -> None:
    image = site.image(1)
    head = b"HTTP/1.1 200 OK\r\n"
    length = b"Content-Length: %d\r\n\r\n"

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(2**16))

    cases = {
        "/short": (raw(head + length % (len(image) + 1) + image), "short_body"),
        "/chunk": (raw(head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + image), "connection"),
        "/no-http": (raw(b"\x00\x01\x02 nonsense\r\n\r\n"), "connection"),
        "/closed": (raw(b""), "connection"),
        "/headers": (raw(head + b"X: " + b"x" * 100_000 + b"\r\n\r\n"), "connection"),
        "/endless": (endless, "too_large"),
        "/declared": (raw(head + length % 10**12), "too_large"),
    }
    urls = [site.handle(path, handler) for path, (handler, _) in cases.items()]
    urls.append(site.put("/just", image))
    outcomes = statuses(site.scraped(collection, urls, max_bytes=max(len(image), 200_000)))
    assert outcomes == [status for _, status in cases.values()] + ["ok"]


def test_a_cap_is_a_cap_on_the_wire_and_unpacked(site: Any, collection: Collection) -> None:
    image = site.image(1)
    bomb = gzip.compress(bytes(2**24))
    encoded = {"Content-Encoding": "gzip"}
    urls = [
        site.put("/exact", image),
        site.put("/gzip", gzip.compress(site.image(2)), headers=encoded),
        site.put("/deflate", zlib.compress(site.image(3)), headers={"Content-Encoding": "deflate"}),
        site.put("/bomb", bomb, headers=encoded),
        site.put("/not", b"\x1f\x8b\x08" + image, headers=encoded),
        site.put("/brotli", b"\x8b\x01\x80" + image, headers={"Content-Encoding": "br"}),
        site.put("/over", image + bytes(2000)),
    ]
    outcomes = statuses(site.scraped(collection, urls, max_bytes=len(image) + 1000))
    assert outcomes == ["ok", "ok", "ok", "too_large", "truncated", "unsupported", "too_large"]


def test_what_stands_behind_a_whole_gzip_is_counted_too(site: Any, collection: Collection) -> None:
    def endless(head: bytes) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Encoding": "gzip"})
            await response.prepare(request)
            await response.write(gzip.compress(head))
            while True:
                await response.write(bytes(2**16))

        return answer

    site.handle("/robots.txt", endless(b"User-agent: *\nDisallow: /no\n"))
    urls = [site.handle("/a", endless(site.image(1))), site.put("/no", site.image(2))]
    rows = site.scraped(collection, urls, max_bytes=200_000, timeout_s=60)
    assert [row["status"] for row in rows] == ["too_large", "opted_out"]


@pytest.mark.slow
def test_only_a_total_deadline_ends_a_drip(site: Any, collection: Collection) -> None:
    image = site.image(1)

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(image))})
        await response.prepare(request)
        for byte in image:
            await response.write(bytes([byte]))
            await asyncio.sleep(0.05)
        return response

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    urls = [site.handle("/drip", drip), site.handle("/hang", hang), site.put("/good", image)]
    rows = site.scraped(collection, urls, timeout_s=2)
    assert [(r["status"], r["detail"]) for r in rows[:2]] == [("timeout", "not done in 2 s")] * 2
    assert rows[2]["status"] == "ok"


def test_what_is_no_connection(site: Any, collection: Collection) -> None:
    urls = [
        f"https://127.0.0.1:{site.port}/",
        "http://127.0.0.1:1/",
        "http://no-such-name.invalid/",
        "http://no-such-name.localhost.invalid./",
    ]
    rows = site.scraped(collection, urls)
    assert [r["status"] for r in rows[:2]] == ["tls", "connection"]
    assert {r["status"] for r in rows[2:]} <= {"dns_unknown", "dns_temporary"}  # by what name server there is
    assert rows[1]["detail"] == "robots.txt: Connection refused"


@pytest.mark.slow
def test_no_answer_however_broken_stops_a_part(site: Any, collection: Collection) -> None:
    image, dice = site.image(1), random.Random(5)
    whole = [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Robots-Tag: all\r\n\r\n" % len(image) + image,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(image) + image + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/x\r\nContent-Length: 0\r\n\r\n" % site.port,
        b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(image),
    ]

    def broken() -> bytes:
        data = bytearray(dice.choice(whole))
        for _ in range(dice.randint(1, 6)):
            data[dice.randrange(min(140, len(data)))] = dice.choice(b"\x00\xff\r\n :;,0129abz\x80")
        return bytes(data)

    urls = [site.handle(f"/{n}", raw(broken())) for n in range(400)]
    outcomes = Counter(statuses(site.scraped(collection, urls, timeout_s=5, max_host_failures=None)))
    assert len(outcomes) >= 6
    assert outcomes["connection"] > 50


# Manners


def test_an_honest_name_and_nothing_else_about_us(site: Any, collection: Collection) -> None:
    urls = [site.put("/a", site.image(1), headers={"Set-Cookie": "id=1"}), site.put("/b", site.image(2))]
    site.scraped(collection, urls, user_agent_contact="https://example.org/bot", concurrency=1)
    agent = site.headers.pop("User-Agent")
    assert agent.startswith("dreamloom/0")
    assert agent.endswith(" (+https://example.org/bot)")
    assert set(site.headers) == {"Host", "Accept", "Accept-Encoding"}
    assert site.headers["Accept-Encoding"] == "gzip"  # what it can unpack, whatever else is installed


def test_a_cookie_wall_is_passed_and_its_cookies_go_nowhere_else(site: Any, collection: Collection) -> None:
    sent: dict[str, list[str]] = {}

    def wall(path: str, to: str) -> str:
        async def answer(request: web.Request) -> web.StreamResponse:
            cookie = request.headers.get("Cookie", "")
            sent.setdefault(path, []).append(cookie)
            if "seen=yes" in cookie:
                return web.Response(body=site.image(len(path)))
            response = web.Response(status=302, headers={"Location": to})
            response.headers.add("Set-Cookie", "seen=yes; Path=/; HttpOnly")
            response.headers.add("Set-Cookie", "b=2")
            response.headers.add("Set-Cookie", "no cookie")
            return response

        return str(site.handle(path, answer))

    away = site.url.replace("127.0.0.1", "localhost")
    urls = [wall("/a", "/a"), wall("/bb", "/bb"), wall("/ccc", f"{away}/dddd"), site.put("/e", site.image(9))]
    wall("/dddd", f"{away}/dddd")
    rows = site.scraped(collection, urls, concurrency=1)
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert sent == {
        "/a": ["", "seen=yes; b=2"],
        "/bb": ["", "seen=yes; b=2"],
        "/ccc": [""],
        "/dddd": ["", "seen=yes; b=2"],
    }


def test_what_a_host_says_is_recorded_also_where_its_body_is_not_taken(site: Any, collection: Collection) -> None:
    said = {"X-Robots-Tag": "noarchive"}
    urls = [
        site.put("/large", bytes(9000), headers=said),
        site.put("/odd", b"\x8b\x01", headers={**said, "Content-Encoding": "br"}),
    ]
    rows = site.scraped(collection, urls, max_bytes=5000)
    assert [(row["status"], row["consent"]) for row in rows] == [
        ("too_large", "x-robots-tag: noarchive"),
        ("unsupported", "x-robots-tag: noarchive"),
    ]


def test_a_referer_is_sent_where_that_is_asked(site: Any, collection: Collection) -> None:
    async def asks_for_it(request: web.Request) -> web.StreamResponse:
        is_there = request.headers.get("Referer") == f"{site.url}/"
        return web.Response(body=site.image(1)) if is_there else web.Response(status=403)

    urls = [site.handle("/a/b", asks_for_it)]
    assert statuses(site.scraped(collection, urls)) == ["http_403"]
    assert scrape(collection, site.config.model_copy(update={"referer": "site"})).dropped == {"http_403": 1}
    config = site.config.model_copy(update={"referer": "site"})
    assert scrape(collection, config, retry=[Status.HTTP_403]).kept == 1


def test_opt_outs_are_obeyed_and_recorded(site: Any, collection: Collection) -> None:
    headers = [
        {"X-Robots-Tag": "noai"},
        [("X-Robots-Tag", "otherbot: noai"), ("X-Robots-Tag", "NOIMAGEAI")],
        {"TDM-Reservation": "1"},
        {"X-Robots-Tag": "otherbot: noai"},
        {},
    ]
    urls = [site.put(f"/{n}", site.image(n), headers=header) for n, header in enumerate(headers)]
    urls.append(site.put("/moved", status=302, headers={"Location": "/4", "X-Robots-Tag": "none"}))
    urls.append(site.put("/gone", status=404, headers={"X-Robots-Tag": "noindex"}))
    rows = site.scraped(collection, urls)
    assert [r["status"] for r in rows] == ["opted_out"] * 3 + ["ok", "ok", "opted_out", "http_404"]
    assert [r["consent"] for r in rows] == [
        "x-robots-tag: noai",
        "x-robots-tag: otherbot: noai; x-robots-tag: NOIMAGEAI",
        "tdm-reservation: 1",
        "x-robots-tag: otherbot: noai",
        "nothing said",
        "x-robots-tag: none",
        None,
    ]
    site.put("/0", reserved_by_iptc(), headers={"X-Robots-Tag": "noai"})
    site.put("/4", reserved_by_c2pa())
    seen = site.scraped(collection, [urls[0], urls[4]], respect_optout=False)
    said = ["x-robots-tag: noai; iptc: DMI-PROHIBITED-AIMLTRAINING", "c2pa: no training"]
    assert [(r["status"], r["consent"]) for r in seen] == [("ok", each) for each in said]
    for number in (0, 4):
        site.put(f"/{number}", site.image(number), headers=headers[number])
    rows = site.scraped(collection, urls[:3], respect_optout=False)
    assert [(r["status"], r["consent"]) for r in rows] == [("ok", r["consent"]) for r in rows]


def test_what_passes_is_tried_again_when_the_host_says(site: Any, collection: Collection) -> None:
    def once(path: str, status: int, headers: dict[str, str]) -> str:
        async def answer(_: web.Request) -> web.StreamResponse:
            if site.hits[path] == 1:
                return web.Response(status=status, headers=headers)
            return web.Response(body=site.image(len(path)))

        return str(site.handle(path, answer))

    urls = [once("/429", 429, {"Retry-After": "0"}), once("/5030", 503, {}), once("/40400", 404, {})]
    urls.append(once("/dated", 429, {"Retry-After": "Sat, 01 Jan 2022 00:00:00 GMT"}))
    urls.append(once("/skewed", 429, dict.fromkeys(("Date", "Retry-After"), "Sat, 01 Jan 2222 00:00:00 GMT")))
    urls.append(site.put("/always", status=500, headers={"Retry-After": "Fri, 31 Dec 9999 23:59:59 -2300"}))
    outcomes = statuses(site.scraped(collection, urls, retries=1))
    assert outcomes == ["ok", "ok", "http_404", "ok", "ok", "http_5xx"]
    assert [site.hits[p] for p in ("/429", "/5030", "/40400", "/dated", "/skewed", "/always")] == [2, 2, 1, 2, 2, 2]


def test_a_slow_host_does_not_hold_the_others(site: Any, collection: Collection) -> None:
    """Its first answers come when all of the other host's images were asked for; waiting for them would never end."""
    fast = [site.put(f"/fast/{n}", site.image(n)) for n in range(12)]

    async def slow(_: web.Request) -> web.StreamResponse:
        while sum(site.hits[f"/fast/{n}"] for n in range(12)) < 12:
            await asyncio.sleep(0.01)
        return web.Response(status=404)

    slows = [site.handle(f"/slow/{n}", slow).replace("127.0.0.1", "localhost") for n in range(12)]
    outcomes = statuses(site.scraped(collection, [*slows, *fast], concurrency=4, concurrency_per_host=2))
    assert outcomes == ["http_404"] * 12 + ["ok"] * 12


def test_processes_that_scrape_a_collection_divide_what_a_host_may_bear(site: Any, collection: Collection) -> None:
    other = Worker(collection.root, {"table": "records"})
    try:
        site.scraped(collection, [site.crowd(f"/{n}") for n in range(20)], concurrency_per_host=4)
    finally:
        other.leave()
    assert site.max_concurrent == 2


def test_no_host_is_asked_for_more_at_once_than_it_should(site: Any, collection: Collection) -> None:
    site.scraped(collection, [site.crowd(f"/{n}") for n in range(20)], concurrency_per_host=3)
    assert site.max_concurrent == 3
