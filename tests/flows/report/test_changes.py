"""What changed since the last run: by source, and which images."""

from typing import Any

import pyarrow as pa
import pytest

from dreamloom.flows.project.workspace import report_path
from dreamloom.flows.report.changes import find_changes, read_changes


def table(*rows: tuple[str, str, str, str | None]) -> pa.Table:
    names = ["source", "key", "file", "caption", "licence"]
    return pa.table({name: [(s, k, f"{k}.jpg", c, li)[i] for s, k, c, li in rows] for i, name in enumerate(names)})


def test_new_gone_captions_and_licences_are_told_apart() -> None:
    before = table(("web", "a", "a dog", "CC0"), ("web", "b", "a cat", None), ("own", "c", "me", None))
    now = table(("web", "a", "a big dog", "CC-BY"), ("web", "d", "a cow", None), ("own", "c", "me", None))
    found = find_changes(before, now)
    assert found["By source"] == [{"source": "web", "new": 1, "gone": 1, "caption": 1, "licence": 1}]
    assert [(row["change"], row["image"], row["before"], row["now"]) for row in found["Images"]] == [
        ("new", "d.jpg", "", "a cow"),
        ("gone", "b.jpg", "a cat", ""),
        ("caption", "a.jpg", "a dog", "a big dog"),
        ("licence", "a.jpg", "CC0", "CC-BY"),
    ]
    assert find_changes(now, now) == {"By source": [], "Images": []}


@pytest.mark.slow
def test_a_run_tells_what_changed_since_the_last(finished: Any) -> None:
    assert read_changes(finished.workspace) == {}
    (finished.folder / "circles" / "a red circle_(0).png").unlink()
    finished.run()
    (row,) = read_changes(finished.workspace)["By source"]
    assert (row["source"], row["gone"], row["caption"]) == ("circles", 1, 0)
    assert "a red circle" in report_path(finished.workspace).read_text()
    assert "Since the last run" in report_path(finished.workspace).read_text()
