"""A limit counts images; poisoned links, placeholders and copies of other parts' images are found."""

import asyncio
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from dreamloom.scrape.collection import Collection, Status, Table
from dreamloom.scrape.web.scrape import scrape

Row = dict[str, Any]


def statuses(collection: Collection) -> list[str]:
    statuses: list[str] = collection.read(Table.RECORDS, columns=["status"]).column(0).to_pylist()
    return statuses


def some(site: Any, count: int, broken: set[int], prefix: str = "") -> list[str]:
    def page(number: int) -> str:
        path = f"/{prefix}{number}"
        if number in broken:
            return str(site.put(path, status=404))
        return str(site.put(path, site.image(1000 * len(prefix) + number)))

    return [page(number) for number in range(count)]


@pytest.mark.parametrize("concurrency", [1, 16])
def test_a_limit_is_a_limit_on_images_in_the_candidates_order(
    site: Any, collection: Collection, concurrency: int
) -> None:
    urls = some(site, 40, {0, 1, 4, 8})
    urls[5] = urls[3]  # a copy is no image
    rows = site.scraped(collection, urls, limit=6, concurrency=concurrency)
    expected = ["http_404", "http_404", "ok", "ok", "http_404", "duplicate", "ok", "ok", "http_404", "ok", "ok"]
    assert [row["status"] for row in rows] == expected + ["not_needed"] * 29
    assert len(list(collection.image_folder("00000").iterdir())) == 6
    assert site.hits.total() < 30


def test_a_higher_limit_goes_on_where_a_lower_one_ended(site: Any, collection: Collection) -> None:
    site.candidates(collection, some(site, 6, {1}))
    site.candidates(collection, some(site, 6, {0}, "b"), "00001")
    first = scrape(collection, site.config.model_copy(update={"limit": 3}))
    assert (first.kept, first.dropped) == (3, {"http_404": 1, "not_needed": 8})
    assert not any(site.hits[f"/b{n}"] for n in range(6))
    more = scrape(collection, site.config.model_copy(update={"limit": 7}))
    assert (more.kept, more.dropped) == (7, {"http_404": 2, "not_needed": 3})
    assert statuses(collection) == [*("ok", "http_404"), *["ok"] * 4, "http_404", "ok", "ok", *["not_needed"] * 3]
    assert scrape(collection, site.config.model_copy(update={"limit": 2})).kept == 7
    assert scrape(collection, site.config).kept == 10
    assert all(site.hits[f"/{n}"] == 1 for n in range(4))  # those of the first limit


def test_a_limit_asks_no_more_of_parts_that_are_not_needed(site: Any, collection: Collection) -> None:
    site.candidates(collection, some(site, 3, set()))
    site.candidates(collection, some(site, 3, set(), "b"), "00001")
    config = site.config.model_copy(update={"limit": 1, "min_success_rate": 0.9})
    assert scrape(collection, config).dropped == {"not_needed": 5}
    assert site.hits.total() <= 2


def test_bytes_that_are_not_those_of_the_index(site: Any, collection: Collection) -> None:
    body = site.image(1)
    hashes = {
        "sha256": hashlib.sha256(body).hexdigest().upper(),
        "md5": hashlib.md5(body).hexdigest(),
        "none": None,
    }
    rows = [
        {"key": "a", "url": site.put("/a", body), "text": "", "sha256": hashes["sha256"]},
        {"key": "b", "url": site.put("/b", site.image(2)), "text": "", "sha256": hashes["sha256"]},
        {"key": "c", "url": site.put("/c", site.image(3)), "text": "", "md5": hashes["md5"]},
        {"key": "d", "url": site.put("/d", site.image(4)), "text": "", "md5": ""},
        {"key": "e", "url": site.put("/e", body), "text": "", "md5": hashes["md5"]},
    ]
    site.candidates(collection, ["http://h.org"])
    stamp, summary = collection.recipe(Table.CANDIDATES, "00000"), collection.summary(Table.CANDIDATES)
    summary.rows = summary.kept = len(rows)
    collection.write(Table.CANDIDATES, "00000", rows, recipe=stamp or "", config=site.config, summary=summary)
    scrape(collection, site.config)
    assert statuses(collection) == ["ok", "hash_mismatch", "hash_mismatch", "ok", "duplicate"]
    scrape(collection, site.config.model_copy(update={"verify_hash": False}))
    assert statuses(collection) == ["ok", "ok", "ok", "ok", "duplicate"]


def test_one_image_for_every_address_of_a_host_is_none(site: Any, collection: Collection) -> None:
    nothing = site.image(0)
    urls = [site.put(f"/{n}", nothing) for n in range(5)] + [site.put("/other", site.image(1))]
    rows = site.scraped(collection, urls)
    assert [row["status"] for row in rows] == ["placeholder"] * 5 + ["ok"]
    assert rows[0]["detail"] == "127.0.0.1 gives it for 5 addresses"
    assert len(list(collection.image_folder("00000").iterdir())) == 1
    rows = site.scraped(collection, [*urls[:4], urls[5], urls[0]])  # an address that stands twice is one
    assert [row["status"] for row in rows] == ["ok", *["duplicate"] * 3, "ok", "duplicate"]


def test_a_copy_of_another_parts_image_is_not_stored_again(site: Any, collection: Collection) -> None:
    site.candidates(collection, [site.put("/a", site.image(1)), site.put("/b", site.image(2))])
    site.candidates(collection, [site.put("/c", site.image(2)), site.put("/d", status=503)], "00001")
    scrape(collection, site.config)
    assert statuses(collection) == ["ok", "ok", "duplicate", "http_5xx"]
    rows = collection.read(Table.RECORDS).to_pylist()
    assert rows[2]["detail"] == f"repeats {rows[1]['key']}"
    assert not list(collection.image_folder("00001").iterdir())
    site.put("/d", site.image(3))
    scrape(collection, site.config, retry=[Status.HTTP_5XX])
    assert statuses(collection) == ["ok", "ok", "duplicate", "ok"]
    assert site.hits["/c"] == 1


@pytest.mark.parametrize("limit", [None, 3])
def test_two_runs_share_the_parts_of_a_scrape_and_find_what_one_finds(
    site: Any, collection: Collection, limit: int | None
) -> None:
    """The first part is held up, so the second run fetches the other parts before it knows what they repeat."""
    slow = asyncio.Event()

    async def answer(_: web.Request) -> web.StreamResponse:
        await slow.wait()
        return web.Response(body=site.image(0))

    async def answer_last(_: web.Request) -> web.StreamResponse:
        slow.set()
        return web.Response(body=site.image(5))

    first, last = site.handle("/slow", answer), site.handle("/last", answer_last)
    quiet = Collection(collection.root.with_name("quiet"))
    for each in (quiet, collection):
        site.candidates(each, [first, site.put("/a", site.image(1))])
        site.candidates(each, [site.put("/b", site.image(1)), site.put("/c", site.image(2))], "00001")
        site.candidates(each, [site.put("/d", site.image(2)), last, site.put("/e", site.image(0))], "00002")
    config = site.config.model_copy(update={"limit": limit})
    slow.set()
    scrape(quiet, config)
    site.hits.clear()
    slow.clear()
    if limit is not None:
        slow.set()
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(scrape, collection, config) for _ in range(2)]
    assert sum(run.result().parts_done for run in runs) == 3
    assert collection.stamps(Table.RECORDS) == quiet.stamps(Table.RECORDS)
    assert set(site.hits.values()) == {1}
    assert not [p for p in collection.root.rglob(".*") if p.name != ".workers"]


def test_equal_pixels_in_unequal_files_are_one_image_where_that_is_asked(site: Any, collection: Collection) -> None:
    pixels = Image.open(io.BytesIO(site.image(1, name="PNG")))
    files = [io.BytesIO() for _ in range(3)]
    pixels.save(files[0], "PNG", compress_level=0)
    pixels.save(files[1], "PNG", compress_level=9)
    pixels.save(files[2], "WEBP", lossless=True)
    urls = [site.put(f"/{n}", file.getvalue()) for n, file in enumerate(files)] + [site.put("/b", site.image(2))]
    assert [row["status"] for row in site.scraped(collection, urls)] == ["ok"] * 4
    rows = site.scraped(collection, urls, hash_pixels=True)
    assert [row["status"] for row in rows] == ["ok", "duplicate", "duplicate", "ok"]
    assert rows[1]["detail"] == f"repeats {rows[0]['key']}"
    assert rows[0]["pixels_sha256"] == hashlib.sha256(b"64 x 48 " + pixels.tobytes()).hexdigest()
    site.candidates(collection, [site.put("/c", files[1].getvalue()), site.put("/d", status=503)], "00001")
    config = site.config.model_copy(update={"hash_pixels": True})
    assert scrape(collection, config).dropped == {"duplicate": 3, "http_5xx": 1}
    scrape(collection, config, retry=[Status.HTTP_5XX])
    assert [site.hits[path] for path in ("/c", "/d")] == [1, 2]


def test_so_many_redirects_are_followed_and_no_more(site: Any, collection: Collection) -> None:
    site.put("/0", site.image(1))
    for number in range(1, 5):
        site.put(f"/{number}", status=302, headers={"Location": f"/{number - 1}"})
    rows = site.scraped(collection, [f"{site.url}/{number}" for number in (3, 4)], max_redirects=3)
    assert [row["status"] for row in rows] == ["ok", "too_many_redirects"]
