"""An error that nobody foresaw costs the row that met it; it is logged once with its traceback, and counted."""

import logging
from typing import Any

import pytest

from dreamloom.base.errors import StageFailed
from dreamloom.scrape.collection import Collection, Status
from dreamloom.scrape.web.scrape import scrape


@pytest.mark.parametrize("where", ["http.read_consent", "crawler.check_url", "store.encode_image"])
def test_it_costs_its_own_row(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    module, _, name = where.partition(".")
    calls = iter(range(100))

    def fail_twice(*arguments: Any, **named: Any) -> Any:
        if next(calls) in (1, 2):
            raise ZeroDivisionError(where)
        return actual(*arguments, **named)

    actual = getattr(__import__(f"dreamloom.scrape.web.{module}", fromlist=[name]), name)
    monkeypatch.setattr(f"dreamloom.scrape.web.{module}.{name}", fail_twice)
    monkeypatch.setattr("dreamloom.scrape.web.outcome._logged_errors", set())
    with caplog.at_level(logging.INFO, "dreamloom"):
        rows = site.scraped(collection, [site.put(f"/{n}", site.image(n)) for n in range(5)])
    assert sorted(row["status"] for row in rows) == ["internal_error"] * 2 + ["ok"] * 3
    assert {row["detail"] for row in rows} == {None, "ZeroDivisionError"}
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info and where in str(record.exc_info[1])
    monkeypatch.undo()
    assert scrape(collection, site.config, retry=[Status.INTERNAL_ERROR]).kept == 5


def test_many_fail_the_run_and_keep_what_arrived(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("dreamloom.scrape.web.store.find_refusal", fail)
    with pytest.raises(StageFailed, match=r"failed at 3 of 4 images .* --retry internal_error"):
        site.scraped(collection, [site.put("/404", status=404), *(site.put(f"/{n}", site.image(n)) for n in range(3))])
    monkeypatch.undo()
    assert scrape(collection, site.config, retry=[Status.INTERNAL_ERROR]).kept == 3


def test_headers_with_a_date_that_never_comes(site: Any, collection: Collection) -> None:
    never = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
    urls = [
        site.put("/a", site.image(1), headers={"X-Robots-Tag": f"unavailable_after: {never}"}),
        site.put("/b", status=503, headers={"Retry-After": never, "Date": never}),
        site.put("/c", site.image(2)),
    ]
    assert [row["status"] for row in site.scraped(collection, urls)] == ["ok", "http_5xx", "ok"]
