"""robots.txt: asked once of each host, obeyed to the letter of RFC 9309, and its verdict recorded."""

import asyncio
import gc
import zlib
from collections import Counter
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from dreamloom.base.sharing.workers import Worker
from dreamloom.scrape.collection import Collection, Status
from dreamloom.scrape.web.outcome import RowDropped
from dreamloom.scrape.web.robots import RobotsCache, RobotsRules
from dreamloom.scrape.web.robots_rules import RobotsFile

Row = dict[str, Any]

RULES = b"\xef\xbb\xbfUser-agent: otherbot\nDisallow: /\n\nUser-Agent: *\nDisallow: /no\nAllow: /no/yes\n"
RULES += b"Disallow: /*.gif$\n"


def seen(rows: list[Row]) -> list[tuple[str, str | None]]:
    return [(row["status"], row["consent"]) for row in rows]


def test_rules_are_obeyed_and_the_verdict_is_recorded(site: Any, collection: Collection) -> None:
    site.put("/robots.txt", RULES)
    paths = ("/a", "/no/1", "/no/yes", "/x.gif", "/x.gif?a", "/No")
    urls = [site.put(path.partition("?")[0], site.image(n)) for n, path in enumerate(paths)]
    urls[4] = urls[3] + "?a"
    urls.append(site.put("/tag", site.image(9), headers={"X-Robots-Tag": "noarchive"}))
    rows = site.scraped(collection, urls)
    allowed, refused = ("ok", "robots.txt: allowed"), ("opted_out", "robots.txt: disallowed")
    assert seen(rows) == [
        *(allowed, refused, allowed, refused, allowed, allowed),
        ("ok", "robots.txt: allowed; x-robots-tag: noarchive"),
    ]
    assert site.robots.total() == 1
    assert (site.hits["/no/1"], site.hits["/x.gif"]) == (0, 1)
    rows = site.scraped(collection, urls[:2], respect_optout=False)
    assert seen(rows) == [("ok", "nothing said")] * 2
    assert site.robots.total() == 1


def test_who_refuses_training_in_robots_txt_or_a_header_is_heard(site: Any, collection: Collection) -> None:
    site.put(
        "/robots.txt", b"User-agent: *\nContent-Signal: search=yes, ai-train=no\nContent-Signal: /yes/ ai-train=yes\n"
    )
    paths: tuple[tuple[str, dict[str, str]], ...] = (
        ("/a", {}),
        ("/yes/b", {}),
        ("/yes/c", {"Content-Usage": "train-ai=n"}),
    )
    rows = site.scraped(collection, [site.put(path, site.image(n), headers=own) for n, (path, own) in enumerate(paths)])
    refused = "robots.txt: allowed; content-usage: train-ai=n"
    assert seen(rows) == [
        ("opted_out", "robots.txt: no training"),
        ("ok", "robots.txt: allowed"),
        ("opted_out", refused),
    ]
    assert site.hits["/a"] == 0


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_rules_in_utf16_are_rules(encoding: str) -> None:
    text = "\ufeff" * (encoding != "utf-16") + "User-agent: *\r\nDisallow: /no"
    rules = RobotsRules(zlib.compress(text.encode(encoding)), 1)
    with pytest.raises(RowDropped, match="disallowed"):
        asyncio.run(rules.verdict(URL("http://h.org/no")))


def test_a_program_is_addressed_by_its_name(site: Any, collection: Collection) -> None:
    site.put("/robots.txt", b"User-agent: *\nAllow: /\n\nUser-agent: DreamLoom\nDisallow: /a\n")
    rows = site.scraped(collection, [site.put("/a", site.image(1)), site.put("/b", site.image(2))])
    assert [row["status"] for row in rows] == ["opted_out", "ok"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_host_without_rules_allows_all(site: Any, collection: Collection, status: int) -> None:
    site.put("/robots.txt", b"User-agent: *\nDisallow: /", status)
    assert seen(site.scraped(collection, [site.put("/a", site.image(1))])) == [("ok", "nothing said")]


@pytest.mark.parametrize(("status", "named"), [(500, "http_5xx"), (503, "http_5xx"), (429, "http_429")])
def test_a_host_that_cannot_say_just_now_is_not_asked(
    site: Any, collection: Collection, status: int, named: str
) -> None:
    site.put("/robots.txt", status=status)
    (row,) = site.scraped(collection, [site.put("/a", site.image(1))])
    assert (row["status"], row["detail"]) == (named, f"robots.txt: HTTP {status}")
    assert site.hits["/a"] == 0


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_rules_that_cannot_be_read_are_asked_once_and_allow_nothing(
    site: Any, collection: Collection, encoding: str
) -> None:
    body = b"\x1f\x8bUser-agent: *\nAllow: /\n"
    site.put("/robots.txt", body, headers={"Content-Encoding": encoding})
    rows = site.scraped(collection, [site.put(f"/{n}", site.image(n)) for n in range(9)])
    assert {row["status"] for row in rows} == {"unsupported"}
    assert all(row["detail"].startswith("robots.txt: ") for row in rows)
    assert (site.robots.total(), site.hits.total()) == (1, 0)


def test_its_redirects_are_followed_but_not_to_private_places(site: Any, collection: Collection) -> None:
    def moved(path: str, to: str) -> None:
        site.put(path, status=301, headers={"Location": to})

    moved("/robots.txt", "/r1")
    for n in range(1, 5):
        moved(f"/r{n}", f"/r{n + 1}")
    site.put("/r5", b"User-agent: *\nDisallow: /")
    urls = [site.put("/a", site.image(1))]
    assert [row["status"] for row in site.scraped(collection, urls)] == ["opted_out"]
    moved("/r5", "/r6")
    site.put("/r6", b"User-agent: *\nDisallow: /")
    assert [row["status"] for row in site.scraped(collection, urls, max_redirects=4)] == [
        "ok"
    ]  # a sixth is not followed
    moved("/robots.txt", "file:///etc/passwd")
    assert [row["status"] for row in site.scraped(collection, urls, max_redirects=3)] == ["ok"]


def test_what_is_beyond_500_kib_is_not_read(site: Any, collection: Collection) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"User-agent: *\nDisallow: /no\n" + (b"# " + b"x" * 9998 + b"\n") * 52)
        while True:
            await response.write(b"Disallow: /a\n" + b"# " + b"x" * 9998 + b"\n")

    site.handle("/robots.txt", endless)
    rows = site.scraped(collection, [site.put("/a", site.image(1)), site.put("/no", site.image(2))])
    assert [row["status"] for row in rows] == ["ok", "opted_out"]


def test_a_redirect_to_another_host_hears_that_hosts_rules(site: Any, collection: Collection) -> None:
    async def robots(request: web.Request) -> web.StreamResponse:
        away = request.host.startswith("localhost")
        return web.Response(text=f"User-agent: *\nDisallow: {'/a' if away else '/nothing'}\n")

    site.handle("/robots.txt", robots)
    target = site.put("/a", site.image(1)).replace("127.0.0.1", "localhost")
    urls = [site.put("/moved", status=302, headers={"Location": target}), site.url + "/a"]
    rows = site.scraped(collection, urls)
    assert [row["status"] for row in rows] == ["opted_out", "ok"]
    assert site.robots.total() == 2


class Hosts:
    """Each has rules of its own."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def fetch_prefix(self, url: URL, max_bytes: int) -> bytes:
        self.asked[url.raw_host or ""] += 1
        return f"User-agent: *\nDisallow: /{url.raw_host}/\n".encode()


def refused(hosts: Hosts, names: list[str]) -> list[bool]:
    """Whether each host's rules forbid what they forbid."""

    async def ask() -> list[bool]:
        robots, refusals = RobotsCache(hosts, allow_private_addresses=False), []
        for name in names:
            address = URL(f"http://{name}/{name}/1.jpg")
            try:
                await (await robots.rules(address)).verdict(address)
            except RowDropped as dropped:
                refusals.append(dropped.status == Status.OPTED_OUT)
            else:
                refusals.append(False)
        return refusals

    return asyncio.run(ask())


class Long:
    """A host whose short answer unpacks to rules that take long."""

    async def fetch_prefix(self, url: URL, max_bytes: int) -> bytes:
        return (b"User-agent: *\n" + b"Disallow: /*a*b\n" * 28_000)[:max_bytes]


def test_long_rules_leave_the_loop_to_the_others() -> None:
    """They pack to some 1,200 bytes, and took half a second of the loop for each address."""

    async def count_turns() -> int:
        address = URL("http://h.example/" + "a" * 2000)
        rules = await RobotsCache(Long(), allow_private_addresses=False).rules(address)
        verdict = asyncio.create_task(rules.verdict(address))
        turns = 0
        while not verdict.done():
            await asyncio.sleep(0)
            turns += 1
        assert await verdict == "robots.txt: allowed"
        return turns

    assert asyncio.run(count_turns()) > 10


def test_what_stands_within_500_kib_is_obeyed(site: Any, collection: Collection) -> None:
    site.put("/robots.txt", b"User-agent: *\n" + b"# and so on\n" * 40_000 + b"Disallow: /no\n")
    rows = site.scraped(collection, [site.put("/a", site.image(1)), site.put("/no", site.image(2))])
    assert [row["status"] for row in rows] == ["ok", "opted_out"]


@pytest.mark.slow
def test_of_many_hosts_few_are_kept_parsed_and_none_is_asked_twice() -> None:
    """Parsed, a host's rules take several times their text: those of ten thousand hosts would take all memory."""
    hosts, names = Hosts(), [f"h{n}.example" for n in range(1000)]
    assert all(refused(hosts, [*names, *names[::-1]]))
    assert set(hosts.asked.values()) == {1}
    gc.collect()
    assert sum(isinstance(each, RobotsFile) for each in gc.get_objects()) < 300


def test_what_is_kept_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamloom.scrape.web.robots._MAX_CACHE_BYTES", 1000)
    hosts, names = Hosts(), [f"h{n}.example" for n in range(50)]
    assert all(refused(hosts, names + names))
    assert set(hosts.asked.values()) == {2}


def test_a_crawl_delay_has_a_cap() -> None:
    text = b"User-agent: *\nCrawl-delay: 3600\n"
    assert asyncio.run(RobotsRules(zlib.compress(text), len(text)).delay_s()) == 10.0


@pytest.mark.parametrize(("asked", "processes", "waited"), [(b"7.25", 1, 7.25), (b"3600", 1, 10.0), (b"7.25", 2, 14.5)])
def test_crawl_delay_parts_the_requests(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch, asked: bytes, processes: int, waited: float
) -> None:
    """The event loop is asked for a pause before each request but the first; here its pauses are short.

    Several processes share what the host allows.
    """
    pauses, call_later = [], asyncio.BaseEventLoop.call_later

    def hurry(loop: Any, delay: float, *what: Any, **context: Any) -> asyncio.TimerHandle:
        pauses.append(delay)
        return call_later(loop, min(delay, 0.001) if delay == waited else delay, *what, **context)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_later", hurry)
    site.put("/robots.txt", b"User-agent: *\nCrawl-delay: " + asked)
    others = [Worker(collection.root, {"table": "records"}) for _ in range(processes - 1)]
    try:
        site.scraped(collection, [site.put(f"/{n}", status=404) for n in range(4)])
    finally:
        for other in others:
            other.leave()
    assert pauses.count(waited) >= 3
    assert site.hits.total() == 4
