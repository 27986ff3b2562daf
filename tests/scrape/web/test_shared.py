"""Several captions of one address, as `deduplicate_by: url_text` leaves them: one download, and a row for each."""

from typing import Any

import pytest

from dreamloom.base.stage import Summary
from dreamloom.scrape.collection import Collection, Status, Table, key_of
from dreamloom.scrape.web.scrape import scrape

Row = dict[str, Any]


def put_candidates(site: Any, collection: Collection, rows: list[tuple[str, str]], part: str = "00000") -> None:
    """Writes candidates of (url, text), with the keys that filter gives them."""
    table = [{"key": key_of("url", url, text), "url": url, "text": text} for url, text in rows]
    summary = Summary(rows=len(rows), kept=len(rows))
    collection.write(Table.CANDIDATES, part, table, recipe=f"r{rows}", config=site.config, summary=summary)


def records(collection: Collection) -> list[Row]:
    rows: list[Row] = collection.read(Table.RECORDS).to_pylist()
    return rows


@pytest.mark.parametrize("concurrency", [1, 16])
def test_each_caption_has_a_row_and_an_image_and_the_address_is_asked_once(
    site: Any, collection: Collection, concurrency: int
) -> None:
    a, b, copy = site.put("/a", site.image(1)), site.put("/b", site.image(2)), site.put("/copy", site.image(1))
    gone = site.put("/gone", status=404)
    put_candidates(site, collection, [(a, "1"), (gone, "1"), (a, "2"), (b, "1"), (a, "3"), (gone, "2"), (copy, "4")])
    scrape(collection, site.config.model_copy(update={"concurrency": concurrency}))
    rows = records(collection)
    assert [row["status"] for row in rows] == ["ok", "http_404", "ok", "ok", "ok", "http_404", "duplicate"]
    assert [row["text"] for row in rows] == ["1", "1", "2", "1", "3", "2", "4"]
    stored = [row for row in rows if row["status"] == "ok"]
    assert [row["image"] for row in stored] == [f"images/00000/{row['key']}.jpg" for row in stored]
    bodies = [(collection.root / row["image"]).read_bytes() for row in stored]
    assert bodies == [site.image(n) for n in (1, 1, 2, 1)]
    assert [site.hits[path] for path in ("/a", "/gone", "/b")] == [1, 1, 1]


def test_each_caption_of_an_image_says_that_its_end_was_missing(site: Any, collection: Collection) -> None:
    a = site.put("/a", site.image(1)[:-2])
    put_candidates(site, collection, [(a, "1"), (a, "2")])
    put_candidates(site, collection, [(a, "3")], "00001")
    scrape(collection, site.config.model_copy(update={"accept_missing_end": True}))
    assert [row["detail"] for row in records(collection)] == ["its end mark was missing"] * 3
    assert collection.summary(Table.RECORDS).marked == {"missing_end": 3}


def test_an_address_that_stands_twice_is_a_duplicate_where_it_is_no_caption(site: Any, collection: Collection) -> None:
    a = site.put("/a", site.image(1))
    rows = site.scraped(collection, [a, a])  # keys that are not those of url_text
    assert [row["status"] for row in rows] == ["ok", "duplicate"]
    assert site.hits["/a"] == 1


def test_a_caption_in_a_later_part_and_in_a_later_run(site: Any, collection: Collection) -> None:
    a, b = site.put("/a", site.image(1)), site.put("/b", status=503)
    put_candidates(site, collection, [(a, "1"), (b, "1")])
    put_candidates(site, collection, [(a, "2"), (b, "2")], "00001")
    assert scrape(collection, site.config).dropped == {"http_5xx": 2}
    site.put("/b", site.image(2))
    scrape(collection, site.config, retry=[Status.HTTP_5XX])
    assert [row["status"] for row in records(collection)] == ["ok"] * 4
    assert [site.hits[path] for path in ("/a", "/b")] == [1, 3]
    for row in records(collection):
        assert (collection.root / row["image"]).stat().st_size == row["bytes"]


def test_a_limit_counts_captions(site: Any, collection: Collection) -> None:
    a, b = site.put("/a", site.image(1)), site.put("/b", site.image(2))
    put_candidates(site, collection, [(a, "1"), (b, "1"), (a, "2"), (b, "2")])
    scrape(collection, site.config.model_copy(update={"limit": 3}))
    assert [row["status"] for row in records(collection)] == ["ok", "ok", "ok", "not_needed"]
    scrape(collection, site.config)
    assert [row["status"] for row in records(collection)] == ["ok"] * 4
    assert [site.hits[path] for path in ("/a", "/b")] == [1, 1]
