"""A result is computed once, and again where what is remembered of it is gone or damaged."""

from pathlib import Path

import pytest

from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.base.files.remembered import remembered


def test_a_result_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    computed: list[int] = []

    def compute() -> dict[str, int]:
        computed.append(1)
        return {"images": len(computed)}

    assert [remembered("a", compute), remembered("a", compute)] == [{"images": 1}] * 2
    assert remembered("b", compute) == {"images": 2}
    for file in (cache_folder() / "results").iterdir():
        file.write_text("{")
    assert remembered("a", compute) == {"images": 3}


def test_a_cache_that_cannot_be_written_costs_the_work_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "file"))
    assert remembered("a", lambda: 1) == 1
