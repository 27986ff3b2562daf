"""The loop of the parts: each is made once, whole, and again only when its recipe changes; also after a kill."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.progress import Progress
from dreamloom.base.stage import StageConfig, Summary, recipe
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.parts import make_parts, split, stale_parts


class Config(StageConfig):
    words: str = "a"


@given(st.integers(0, 50), st.integers(1, 20))
def test_split_loses_no_row_and_always_gives_a_part(count: int, part_rows: int) -> None:
    parts = split(list(range(count)), part_rows)
    assert [row for name in sorted(parts) for row in parts[name]] == list(range(count))
    assert parts
    assert all(len(rows) <= part_rows for rows in parts.values())


def a_stage(made: list[str]) -> Callable[[str, Progress], tuple[list[dict[str, Any]], Summary]]:
    def work(part: str, progress: Progress) -> tuple[list[dict[str, Any]], Summary]:
        made.append(part)
        progress(1, 1)
        return [{"key": f"{part}-{i}"} for i in range(3)], Summary(rows=3, kept=3)

    return work


def recipes_for(config: Config, parts: int, changed: str = "") -> dict[str, str]:
    names = [f"{i:05d}" for i in range(parts)]
    return {n: recipe("x", 1, config, upstream=[changed if n == "00001" else ""]) for n in names}


def test_a_part_is_made_once_and_again_only_when_its_recipe_changes(tmp_path: Path) -> None:
    collection, made_parts = Collection(tmp_path), list[str]()

    def run(config: Config, parts: int = 3, changed: str = "") -> Summary:
        made_parts.clear()
        recipes = recipes_for(config, parts, changed)
        return make_parts(collection, Table.CANDIDATES, config, recipes, a_stage(made_parts))

    assert run(Config()).parts_done == 3
    again = run(Config())
    assert (made_parts, again.parts_done, again.parts_before, again.kept) == ([], 0, 3, 9)
    run(Config(), changed="upstream")
    assert made_parts == ["00001"]
    run(Config(words="b"))
    assert made_parts == ["00000", "00001", "00002"]
    run(Config(words="b"), parts=2)
    assert made_parts == []
    assert collection.parts(Table.CANDIDATES) == ["00000", "00001"]


def test_a_part_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    collection, made_parts = Collection(tmp_path), list[str]()

    def work(part: str, progress: Progress) -> tuple[list[dict[str, Any]], Summary]:
        if part == "00001":
            raise OSError("disk trouble")
        return a_stage(made_parts)(part, progress)

    with pytest.raises(ExceptionGroup) as failure:
        make_parts(collection, Table.CANDIDATES, Config(), recipes_for(Config(), 3), work)
    assert "1 of 3 parts" in str(failure.value)
    assert collection.parts(Table.CANDIDATES) == ["00000", "00002"]


def test_parts_can_be_asked_for_one_by_one(tmp_path: Path) -> None:
    collection, made_parts = Collection(tmp_path), list[str]()
    recipes = recipes_for(Config(), 3)
    make_parts(collection, Table.CANDIDATES, Config(), recipes, a_stage(made_parts), parts=["00001"])
    assert made_parts == collection.parts(Table.CANDIDATES) == ["00001"]
    assert stale_parts(collection, Table.CANDIDATES, recipes) == ["00000", "00002"]


def test_progress_of_parts_adds_up_to_the_whole_though_the_last_is_small(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    def work(part: str, progress: Progress) -> tuple[list[dict[str, Any]], Summary]:
        rows = {"00000": 4, "00001": 4, "00002": 1}[part]
        progress(1, rows)
        progress(rows, rows)
        return [], Summary()

    make_parts(
        Collection(tmp_path),
        Table.CANDIDATES,
        Config(),
        recipes_for(Config(), 3),
        work,
        lambda done, total, note="": seen.append((done, total)),
    )
    assert seen == [(1, 12), (4, 12), (5, 12), (8, 12), (9, 9), (9, 9)]


SCRIPT = """
from pathlib import Path
from dreamloom.base.stage import StageConfig, Summary, recipe
from dreamloom.scrape.collection import *
from dreamloom.scrape.collection.parts import *
class Config(StageConfig):
    words: str = "a"
recipes = {{f"{{i:05d}}": recipe("x", 1, Config(), [str(i)]) for i in range(4)}}
def work(part, progress):
    return [{{"key": f"{{part}}-{{i}}"}} for i in range(3)], Summary(rows=3, kept=3)
make_parts(Collection(Path({root!r})), Table.CANDIDATES, Config(), recipes, work)
"""


@pytest.mark.slow
def test_killed_at_every_write_and_run_again_gives_the_undisturbed_tables(tmp_path: Path, crash: Any) -> None:
    undisturbed = Collection(tmp_path / "undisturbed")
    assert not crash.run(SCRIPT.format(root=str(undisturbed.root)), at=10_000)
    killed = Collection(tmp_path / "killed")
    moments = 0
    while crash.run(SCRIPT.format(root=str(killed.root)), at=1 + moments):
        moments += 1
        for part in killed.parts(Table.CANDIDATES):
            assert killed.read(Table.CANDIDATES, part).equals(undisturbed.read(Table.CANDIDATES, part))
    assert moments >= 8
    assert not list(killed.root.rglob(".tmp-*"))
    assert killed.read(Table.CANDIDATES).equals(undisturbed.read(Table.CANDIDATES))
    assert killed.stamps(Table.CANDIDATES) == undisturbed.stamps(Table.CANDIDATES)
