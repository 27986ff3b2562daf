"""scrape as a stage: what it says it did, running it again, retrying, and the user's mistakes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dreamloom.base.errors import StageFailed, UserError
from dreamloom.flows.commands.cli import run
from dreamloom.scrape.collection import Collection, Status, Table
from dreamloom.scrape.collection.shards import find_damage_at, pull_collection
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.scrape import recipes, scrape
from tests.powercut import PowerCut


def test_the_summary_says_where_all_went_and_again_is_no_work(site: Any, collection: Collection) -> None:
    urls = [site.put("/a", site.image(1)), site.put("/b", site.image(1)), site.put("/c", status=404)]
    site.candidates(collection, urls)
    site.candidates(collection, [site.put("/d", site.image(4))], "00001")
    seen: list[tuple[int, int | None, str]] = []
    first = scrape(collection, site.config, lambda done, total, note="": seen.append((done, total, note)))
    assert (first.rows, first.kept, first.dropped) == (4, 2, {"duplicate": 1, "http_404": 1})
    assert (first.bytes_written, first.parts_done) == (len(site.image(1)) + len(site.image(4)), 2)
    assert any("1 http_404" in note for _, _, note in seen)
    effort = {"timeout_s": 9, "concurrency": 3, "user_agent_contact": "me"}
    again = scrape(collection, site.config.model_copy(update=effort))
    assert (again.rows, again.kept, again.parts_done, again.parts_before) == (4, 2, 0, 2)
    assert sum(site.hits.values()) == 4
    other = site.config.model_copy(update={"min_side": 8})
    assert set(recipes(collection, other).values()).isdisjoint(recipes(collection, site.config).values())
    assert scrape(collection, other, parts=["00001"]).parts_done == 1
    assert (site.hits["/d"], site.hits["/a"]) == (2, 1)
    assert not list(collection.root.rglob(".journal*"))


def test_a_smaller_plan_removes_the_images_of_the_larger(site: Any, collection: Collection) -> None:
    urls = [site.put(f"/{n}", site.image(n)) for n in range(4)]
    site.candidates(collection, urls[:3])
    site.candidates(collection, urls[3:], "00001")
    scrape(collection, site.config)
    (collection.root / "candidates" / "00001.parquet").unlink()
    site.scraped(collection, urls[1:3])
    assert collection.parts(Table.RECORDS) == ["00000"]
    assert (
        sorted(str(p.relative_to(collection.root / "images").parent) for p in collection.root.rglob("*.jpg"))
        == ["00000"] * 2
    )


def test_another_filter_asks_for_no_image_again(site: Any, collection: Collection, tmp_path: Path) -> None:
    urls = [site.put(f"/{n}", site.image(n)) for n in range(4)] + [site.put("/gone", status=404)]
    site.scraped(collection, urls[:3])
    more = [*urls[:2], urls[4], urls[3], site.put("/copy", site.image(1))]
    rows = site.scraped(collection, more, limit=9)
    assert [site.hits[f"/{n}"] for n in range(4)] == [1, 1, 1, 1]
    assert rows == site.scraped(Collection(tmp_path / "fresh"), more)
    assert [row["status"] for row in rows] == ["ok", "ok", "http_404", "ok", "duplicate"]
    assert len(list((collection.root / "images" / "00000").iterdir())) == 3
    assert [row["status"] for row in site.scraped(collection, more[:4], limit=1)] == ["ok", *["not_needed"] * 3]
    site.hits.clear()
    site.scraped(collection, more, hash_pixels=True)  # another way
    assert site.hits["/0"] == 1


def test_at_an_address_all_is_as_in_a_folder(site: Any, collection: Collection, tmp_path: Path) -> None:
    there = Collection(f"memory:/{tmp_path}/people")
    urls = [site.put(f"/{n}", site.image(n)) for n in range(4)]
    copy = site.put("/copy", site.image(1))
    asked = []
    for each in (collection, there):
        site.hits.clear()
        busy = site.put("/busy", status=503)
        site.candidates(each, [*urls[:3], busy])
        site.candidates(each, [urls[3], copy], "00001")
        scrape(each, site.config)
        site.candidates(each, [*urls[:2], busy])  # another filter asks for no image again
        scrape(each, site.config)
        site.put("/busy", site.image(9))
        scrape(each, site.config, retry=[Status.HTTP_5XX])
        asked.append(dict(site.hits))
    assert asked[0] == asked[1]
    assert there.stamps(Table.RECORDS) == collection.stamps(Table.RECORDS)
    assert there.address is not None and not list(find_damage_at(there.address))
    pull_collection(there.address, tmp_path / "back")
    assert sorted(file.name for file in (tmp_path / "back" / "images").rglob("*.*")) == sorted(
        file.name for file in (collection.root / "images").rglob("*.*")
    )
    assert not list(there.root.rglob("*.jpg"))


def test_retry_fetches_those_alone(site: Any, collection: Collection) -> None:
    urls = [site.put("/ok", site.image(1)), site.put("/busy", status=503), site.put("/gone", status=404)]
    before = site.scraped(collection, [*urls, site.put("/copy", site.image(9))])
    site.put("/busy", site.image(9))
    site.put("/gone", site.image(3))
    summary = scrape(collection, site.config, retry=[Status.HTTP_5XX, Status.TIMEOUT])
    rows = collection.read(Table.RECORDS).to_pylist()
    assert [r["status"] for r in rows] == ["ok", "ok", "http_404", "duplicate"]
    assert rows[0] == before[0]
    assert (summary.kept, summary.parts_done, summary.parts_before) == (2, 1, 0)
    assert [site.hits[p] for p in ("/ok", "/busy", "/gone", "/copy")] == [1, 2, 1, 1]
    assert len(list((collection.root / "images" / "00000").iterdir())) == 2
    stamp = collection.stamp(Table.RECORDS, "00000")
    scrape(collection, site.config, retry=[Status.HTTP_404])
    assert collection.stamp(Table.RECORDS, "00000") != stamp
    assert scrape(collection, site.config, retry=[Status.HTTP_404]).parts_done == 0


def test_a_retry_that_changes_nothing_asks_again_the_next_time(site: Any, collection: Collection) -> None:
    site.scraped(collection, [site.put("/ok", site.image(1)), site.put("/busy", status=503)])
    scrape(collection, site.config, retry=[Status.HTTP_5XX])
    site.put("/busy", site.image(2))
    scrape(collection, site.config, retry=[Status.HTTP_5XX])
    assert collection.summary(Table.RECORDS).kept == 2


def test_a_stage_that_came_to_too_little_fails_and_keeps_what_came(site: Any, collection: Collection) -> None:
    site.candidates(collection, [site.put("/a", site.image(1)), *(site.url + f"/{n}" for n in range(9))])
    with pytest.raises(StageFailed, match=r"1 of 10 images .*9 http_404"):
        scrape(collection, site.config.model_copy(update={"min_success_rate": 0.2}))
    assert collection.summary(Table.RECORDS).kept == 1
    assert scrape(collection, site.config.model_copy(update={"min_success_rate": 0.1})).parts_done == 0


def test_it_runs_where_a_loop_runs_already(site: Any, collection: Collection) -> None:
    site.candidates(collection, [site.put("/a", site.image(1))])

    async def inside() -> int:
        return scrape(collection, site.config).kept

    assert asyncio.run(inside()) == 1


def test_mistakes_are_one_clear_sentence(site: Any, collection: Collection) -> None:
    with pytest.raises(UserError, match="not a folder"):
        scrape(collection, site.config)
    site.candidates(collection, ["http://h.org/"], "00001")
    with pytest.raises(UserError, match="run filter again"):
        scrape(collection, site.config)
    for wrong in ({"background_color": "no colour"}, {"timeout_s": 0}, {"encode_formatt": "png"}):
        with pytest.raises(ValidationError):
            ScrapeConfig(**wrong)


def test_statuses_to_retry_are_named_as_the_records_name_them(
    site: Any, collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    site.candidates(collection, [site.put("/a", status=500), site.put("/b", status=404), site.put("/c", site.image(1))])
    command = ["scrape", str(collection.root), "--allow-private-addresses", "--min-side=16", "--retries=0"]
    assert run(command) == 0
    assert run([*command, "--retry", "http_5xx,timeout", "http-429"]) == 0
    assert [site.hits[path] for path in ("/a", "/b", "/c")] == [2, 1, 1]
    assert run([*command, "--retry", "http_555"]) == 2
    assert "there is no status http_555; valid: ok, bad_url" in capsys.readouterr().err


@pytest.mark.slow
def test_a_power_cut_leaves_no_record_without_its_image_and_is_made_good(
    site: Any, power: PowerCut, tmp_path: Path
) -> None:
    collection = Collection(power.root / "c")
    site.candidates(collection, [site.put("/a", site.image(1)), site.put("/gone", status=404)])
    with power.watching():
        scrape(collection, site.config)
    (image,) = power.root.rglob("*.jpg")
    for disk, ended in power.left_behind(tmp_path / "found"):
        found = Collection(disk / "c")
        assert found.parts(Table.RECORDS) or not ended
        for row in found.read(Table.RECORDS).to_pylist():
            assert row["status"] == "http_404" or (found.root / row["image"]).read_bytes() == image.read_bytes()
        if not ended:
            scrape(found, site.config)
            assert [path.read_bytes() for path in found.root.rglob("*.jpg")] == [image.read_bytes()]
            assert found.stamps(Table.RECORDS) == collection.stamps(Table.RECORDS)
