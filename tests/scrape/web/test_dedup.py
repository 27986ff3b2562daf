"""What a limit leaves of a part's rows."""

from typing import Any

from dreamloom.scrape.collection import Status
from dreamloom.scrape.web.dedup import apply_limit
from dreamloom.scrape.web.outcome import RowDropped, make_row


def test_images_behind_the_limit_are_not_needed_but_those_that_were_there_stay() -> None:
    candidates: list[dict[str, Any]] = [
        {"key": key, "url": f"http://host/{key}", "text": None, "licence": None} for key in "abcde"
    ]
    rows: list[Any] = [{**make_row(c, {}, RowDropped(Status.HTTP_404)), "status": Status.OK} for c in candidates]
    rows[1] = None
    limited = apply_limit(rows, 2, {"e": rows[4]}, candidates)
    assert [row["status"] for row in limited] == ["ok", "not_needed", "ok", "not_needed", "ok"]
    assert [row["status"] for row in apply_limit(rows, None, {}, candidates)].count("ok") == 4
