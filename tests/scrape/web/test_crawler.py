"""A part is the same whatever was fast, whoever was killed, and nothing that was stored is fetched again."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dreamloom.scrape.collection import Collection, Status, Table
from dreamloom.scrape.collection.journal import Journal
from dreamloom.scrape.web.scrape import scrape
from dreamloom.scrape.web.store import store_image

Row = dict[str, Any]


def images(collection: Collection) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (collection.root / "images").rglob("*") if p.is_file()}


def journaled(collection: Collection) -> list[Row]:
    """The rows that an unfinished run has written down."""
    path = collection.root / "records" / ".journal-00000.jsonl"
    lines = path.read_text().splitlines(keepends=True)[1:] if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_equal_bytes_are_stored_once_and_the_first_candidate_has_them(site: Any, collection: Collection) -> None:
    image = site.image(1)

    async def late(_: web.Request) -> web.StreamResponse:
        while not any(row["url"].endswith("/soon") for row in journaled(collection)):
            await asyncio.sleep(0.01)
        return web.Response(body=image)

    urls = [site.handle("/late", late), site.put("/soon", image), site.put("/other", site.image(2))]
    first, second, other = site.scraped(collection, urls)
    assert (first["status"], second["status"], other["status"]) == ("ok", "duplicate", "ok")
    assert second["detail"] == f"repeats {first['key']}"
    assert (second["image"], second["bytes"], second["sha256"]) == (None, None, first["sha256"])
    assert len(list((collection.root / "images" / "00000").iterdir())) == 2


def test_the_order_of_finishing_changes_nothing(site: Any, tmp_path: Path) -> None:
    """Some answers are held back by chance, another chance each time; two in three share their bytes."""
    dice = random.Random(1)

    def at_some_time(seed: int) -> Any:
        async def answer(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(dice.uniform(0, 0.05))
            return web.Response(body=site.image(seed)) if seed else web.Response(status=404)

        return answer

    urls = [site.handle(f"/{n}", at_some_time(n * 7 % 10)) for n in range(30)]
    seen = []
    for run in range(3):
        collection = Collection(tmp_path / str(run))
        rows = site.scraped(collection, urls, concurrency=8, concurrency_per_host=8)
        seen.append((rows, collection.stamp(Table.RECORDS, "00000"), images(collection)))
    assert seen[0] == seen[1] == seen[2]
    assert [row["status"] for row in seen[0][0]] == [
        "http_404" if n % 10 == 0 else "ok" if n < 10 else "duplicate" for n in range(30)
    ]


# Kills


def script(collection: Collection, site: Any) -> str:
    return f"""
from pathlib import Path
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.scrape import scrape
from dreamloom.scrape.web.store import store_image
config = ScrapeConfig.model_validate_json({site.config.model_dump_json()!r})
scrape(Collection(Path({str(collection.root)!r})), config.model_copy(update={{"concurrency": 6}}))
"""


def some_pages(site: Any) -> list[str]:
    """Thirty addresses: images, among them copies and one to shrink, and failures."""
    urls = [site.put(f"/{n}", site.image(n % 22)) for n in range(26)]
    urls[3] = site.put("/big", site.image(99, 1500, 1200))
    urls += [site.put("/gone", status=404), site.put("/no", b"<html>"), "ftp://h.org/"]
    return [*urls, site.put("/small", site.image(1, 4, 4))]


class Bookkeeping:
    """Whether what a killed run had stored was fetched again."""

    def __init__(self, site: Any, collection: Collection) -> None:
        self.site, self.collection = site, collection
        self.asked: dict[str, int] = {}

    def note(self) -> None:
        for row in journaled(self.collection):
            path = row["url"].rpartition("/")[2]
            if row["status"] == Status.OK:
                assert (self.collection.root / row["image"]).stat().st_size == row["bytes"]
            self.asked.setdefault(path, self.site.hits[f"/{path}"])

    def check(self) -> None:
        assert self.asked == {path: self.site.hits[f"/{path}"] for path in self.asked}


def undisturbed(site: Any, tmp_path: Path, urls: list[str]) -> tuple[list[Row], list[str], dict[str, bytes]]:
    calm = Collection(tmp_path.parent / f"{tmp_path.name}-calm")
    rows = site.scraped(calm, urls)
    site.hits.clear()
    return rows, calm.stamps(Table.RECORDS), images(calm)


def after(collection: Collection) -> tuple[list[Row], list[str], dict[str, bytes]]:
    assert not [p for p in collection.root.rglob(".*") if p.name != ".workers"]
    return collection.read(Table.RECORDS).to_pylist(), collection.stamps(Table.RECORDS), images(collection)


def test_a_journal_that_outlived_its_part_goes_with_the_next_run(site: Any, tmp_path: Path) -> None:
    collection = Collection(tmp_path / "c")
    site.scraped(collection, some_pages(site)[:3])
    journal = tmp_path / "c" / "records" / ".journal-00000.jsonl"
    for plan in ({"recipe": collection.recipe(Table.RECORDS, "00000")}, {"retry": ["timeout"], "of": "an older one"}):
        journal.write_text(json.dumps(plan) + "\n")
        scrape(collection, site.config)
        assert not journal.exists()
    going_on = json.dumps({"retry": ["timeout"], "of": collection.stamp(Table.RECORDS, "00000")}) + "\n"
    journal.write_text(going_on)
    scrape(collection, site.config)
    assert journal.read_text() == going_on


@pytest.mark.slow
def test_killed_at_any_write_it_ends_as_if_undisturbed(site: Any, tmp_path: Path, crash: Any) -> None:
    urls = some_pages(site)
    expected = undisturbed(site, tmp_path, urls)
    dice, collection, kills = random.Random(3), Collection(tmp_path / "c"), 0
    site.candidates(collection, urls)
    books = Bookkeeping(site, collection)
    while crash.run(script(collection, site), dice.randint(8, 60)):
        kills += 1
        books.note()
    assert kills >= 3
    assert after(collection) == expected
    books.check()


@pytest.mark.slow
def test_killed_while_it_waits_for_an_answer_it_ends_as_if_undisturbed(site: Any, tmp_path: Path) -> None:
    urls = some_pages(site)
    expected = undisturbed(site, tmp_path, urls)
    collection = Collection(tmp_path / "c")
    running: list[subprocess.Popen[bytes]] = []
    site.candidates(collection, urls)
    books = Bookkeeping(site, collection)
    killing = {5, 13, 22}
    plain = dict(site.pages)

    def deadly(path: str) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            if sum(site.hits.values()) in killing:
                os.kill(running[-1].pid, signal.SIGKILL)
            response: web.StreamResponse = await plain[path](request)
            return response

        return answer

    site.pages = {path: deadly(path) for path in plain}
    codes: list[int] = []
    while not codes or codes[-1]:
        running.append(subprocess.Popen([sys.executable, "-c", script(collection, site)]))
        codes.append(running[-1].wait(timeout=120))
        books.note()
        killing -= {k for k in killing if k <= sum(site.hits.values())}
    assert codes == [-9, -9, -9, 0]
    assert after(collection) == expected
    books.check()


@pytest.mark.slow
def test_a_kill_in_a_retry_loses_nothing(site: Any, tmp_path: Path, crash: Any) -> None:
    urls = [site.put(f"/{n}", status=503) for n in range(6)] + [site.put("/ok", site.image(50))]
    collection = Collection(tmp_path / "c")
    before = site.scraped(collection, urls)
    for n in range(6):
        site.put(f"/{n}", site.image(n))
    retry = script(collection, site).replace("))\n", "), retry=['http_5xx'])\n")
    assert "retry=" in retry
    assert crash.run(retry, 34)
    assert 0 < len(journaled(collection)) < 6
    assert collection.read(Table.RECORDS).to_pylist() == before
    books = Bookkeeping(site, collection)
    books.note()
    assert scrape(collection, site.config, retry=[Status.HTTP_5XX]).kept == 7
    assert site.hits["/ok"] == 1
    books.check()
    assert len(images(collection)) == 7


# What a run leaves behind, damaged


def test_a_journal_that_was_cut_short_or_planned_otherwise(tmp_path: Path) -> None:
    path, plan = tmp_path / "j", {"recipe": "r"}
    with Journal(path, plan) as journal:
        journal.add({"key": "a", "text": "ä\n\udce4"})
        journal.add({"key": "b"})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path, plan) as journal:
            assert list(journal.rows) in ([], ["a"])
            journal.add({"key": "c"})
            left = dict(journal.rows)
        with Journal(path, plan) as journal:
            assert journal.rows == left
    path.write_bytes(whole)
    with Journal(path, {"recipe": "other"}) as journal:
        assert journal.rows == {}


def test_an_image_that_a_power_cut_took_is_fetched_again(site: Any, collection: Collection) -> None:
    urls = [site.put("/a", site.image(1)), site.put("/a copy", site.image(1)), site.put("/b", site.image(2))]
    rows = site.scraped(collection, [*urls, site.put("/c", status=503)])
    (collection.root / rows[0]["image"]).write_bytes(b"")
    site.put("/a", site.image(3))
    scrape(collection, site.config, retry=[Status.HTTP_5XX])
    assert [site.hits[p] for p in ("/a", "/a copy", "/b", "/c")] == [2, 2, 1, 2]
    assert [r["status"] for r in collection.read(Table.RECORDS).to_pylist()] == ["ok", "ok", "ok", "http_5xx"]


def test_images_that_wait_to_be_decoded_hold_up_further_requests(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the only thread is busy, four images wait for it, and no fifth is asked for."""
    fifth = threading.Event()
    asked: list[str] = []
    came_early: list[bool] = []

    def page(number: int) -> str:
        async def answer(_: web.Request) -> web.StreamResponse:
            asked.append(str(number))
            if len(asked) == 5:
                fifth.set()
            return web.Response(body=site.image(number))

        return str(site.handle(f"/{number}", answer))

    def busy(*arguments: Any) -> Row:
        if not came_early:
            came_early.append(fifth.wait(0.5))  # not at all, however slow the machine is
        return store_image(*arguments)

    monkeypatch.setattr("dreamloom.scrape.web.crawler.store_image", busy)
    rows = site.scraped(collection, [page(n) for n in range(8)], decode_threads=1, concurrency_per_host=1)
    assert came_early == [False]
    assert [row["status"] for row in rows] == ["ok"] * 8
