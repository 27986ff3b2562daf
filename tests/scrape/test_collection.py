"""The contract: what is written is read, a part is whole or absent, and only a recipe decides what is stale."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import UserError
from base.pixels import Reason
from base.progress import Progress
from base.stage import StageConfig, Summary, recipe
from scrape.collection import (
    SCHEMAS,
    CaptionKind,
    Collection,
    Status,
    Table,
    key_of,
    make_parts,
    open_collection,
    split,
    stale_parts,
)


class Config(StageConfig):
    words: str = "a"


def rows_of(table: Table) -> st.SearchStrategy[list[dict[str, Any]]]:
    def values(field: pa.Field) -> st.SearchStrategy[Any]:
        if field.name in ("status", "choice", "kind", "text_kind"):
            return st.sampled_from(["ok", "kept", "human"])
        by_type: dict[Any, st.SearchStrategy[Any]] = {
            pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
            pa.int32(): st.integers(-(2**31), 2**31 - 1),
            pa.int64(): st.integers(-(2**63), 2**63 - 1),
            pa.float32(): st.floats(width=32, allow_nan=False),
            pa.list_(pa.float16()): st.lists(st.floats(width=16, allow_nan=False), max_size=4),
        }
        some = by_type[field.type]
        return some | st.none() if field.nullable else some

    row = st.fixed_dictionaries({f.name: values(f) for f in SCHEMAS[table]})
    return st.lists(row, max_size=8, unique_by=lambda r: r["key"])


@pytest.mark.parametrize("table", list(Table))
@given(data=st.data())
def test_rows_that_are_written_are_read(
    table: Table, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = data.draw(rows_of(table))
    collection = Collection(tmp_path_factory.mktemp("c"))
    summary = Summary(rows=len(rows), kept=len(rows))
    collection.write(table, "00000", rows, recipe="r", config=Config(), summary=summary)
    assert collection.read(table).to_pylist() == rows
    assert collection.summary(table) == summary
    assert collection.config(table, "00000") == {"words": "a"}
    assert collection.recipe(table, "00000") == "r"


def test_columns_left_out_are_null_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    one = Summary(rows=1, kept=1)
    collection.write(Table.CANDIDATES, "00000", [{"key": "k"}], recipe="r", config=Config(), summary=one)
    assert collection.read(Table.CANDIDATES).to_pylist()[0]["url"] is None
    with pytest.raises(ValueError, match="no column"):
        row = {"key": "k", "ulr": "x"}
        collection.write(Table.CANDIDATES, "00000", [row], recipe="r", config=Config(), summary=one)


@pytest.mark.parametrize(
    ("rows", "summary"),
    [([{"key": "k"}, {"key": "k"}], Summary(rows=2, kept=2)), ([{"key": "k"}], Summary(rows=2, kept=1))],
    ids=["a key twice", "a summary that does not add up"],
)
def test_what_breaks_the_contract_is_not_committed(tmp_path: Path, rows: list[Any], summary: Summary) -> None:
    collection = Collection(tmp_path)
    with pytest.raises(ValueError, match=r"twice|add up"):
        collection.write(Table.CANDIDATES, "00000", rows, recipe="r", config=Config(), summary=summary)
    assert collection.parts(Table.CANDIDATES) == []


@given(st.lists(st.text(max_size=9), min_size=1), st.lists(st.text(max_size=9), min_size=1))
def test_keys_are_equal_only_for_equal_identities(one: list[str], other: list[str]) -> None:
    has_separator = any("\0" in part for part in one + other)
    assert has_separator or (key_of(*one) == key_of(*other)) == (one == other)


def test_a_key_is_the_same_on_every_machine() -> None:
    assert key_of("url", "https://example.org/a.jpg") == "806ef797c3223380bceb0f0e28b49469"


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
    collection, made = Collection(tmp_path), list[str]()

    def run(config: Config, parts: int = 3, changed: str = "") -> Summary:
        made.clear()
        recipes = recipes_for(config, parts, changed)
        return make_parts(collection, Table.CANDIDATES, config, recipes, a_stage(made))

    assert run(Config()).parts_done == 3
    again = run(Config())
    assert (made, again.parts_done, again.parts_before, again.kept) == ([], 0, 3, 9)
    run(Config(), changed="upstream")
    assert made == ["00001"]
    run(Config(words="b"))
    assert made == ["00000", "00001", "00002"]
    run(Config(words="b"), parts=2)
    assert made == []
    assert collection.parts(Table.CANDIDATES) == ["00000", "00001"]


def test_a_downstream_recipe_follows_recipe_and_content(tmp_path: Path) -> None:
    collection = Collection(tmp_path)

    def stamp(recipe: str, key: str) -> str:
        one = Summary(rows=1, kept=1)
        collection.write(Table.CANDIDATES, "00000", [{"key": key}], recipe=recipe, config=Config(), summary=one)
        return collection.stamp(Table.CANDIDATES, "00000")

    assert stamp("r", "a") == stamp("r", "a")
    assert len({stamp("r", "a"), stamp("s", "a"), stamp("r", "b")}) == 3


def test_a_part_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    collection, made = Collection(tmp_path), list[str]()

    def work(part: str, progress: Progress) -> tuple[list[dict[str, Any]], Summary]:
        if part == "00001":
            raise OSError("disk trouble")
        return a_stage(made)(part, progress)

    with pytest.raises(ExceptionGroup) as failure:
        make_parts(collection, Table.CANDIDATES, Config(), recipes_for(Config(), 3), work)
    assert "1 of 3 parts" in str(failure.value)
    assert collection.parts(Table.CANDIDATES) == ["00000", "00002"]


def test_parts_can_be_asked_for_one_by_one(tmp_path: Path) -> None:
    collection, made = Collection(tmp_path), list[str]()
    recipes = recipes_for(Config(), 3)
    make_parts(collection, Table.CANDIDATES, Config(), recipes, a_stage(made), parts=["00001"])
    assert made == collection.parts(Table.CANDIDATES) == ["00001"]
    assert stale_parts(collection, Table.CANDIDATES, recipes) == ["00000", "00002"]


def test_progress_of_parts_adds_up_to_the_whole(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    make_parts(
        Collection(tmp_path),
        Table.CANDIDATES,
        Config(),
        recipes_for(Config(), 3),
        a_stage([]),
        lambda done, total, note="": seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


SCRIPT = """
from pathlib import Path
from base.stage import StageConfig, Summary, recipe
from scrape.collection import *
class Config(StageConfig):
    words: str = "a"
recipes = {{f"{{i:05d}}": recipe("x", 1, Config(), [str(i)]) for i in range(4)}}
def work(part, progress):
    return [{{"key": f"{{part}}-{{i}}"}} for i in range(3)], Summary(rows=3, kept=3)
make_parts(Collection(Path({root!r})), Table.CANDIDATES, Config(), recipes, work)
"""


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


def test_the_second_of_two_runs_says_so_and_stops(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    code = f"from pathlib import Path; from base.files import lock\nwith lock(Path({str(tmp_path)!r})): print('held')"
    with collection.lock(), collection.lock():
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "in use by another run" in other.stderr
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.stdout == "held\n"


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    collection.part_path(Table.RECORDS, "00000").parent.mkdir(parents=True)
    collection.part_path(Table.RECORDS, "00000").write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"00000\.parquet can't be read"):
        collection.recipe(Table.RECORDS, "00000")


def test_a_folder_that_is_no_collection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        open_collection(tmp_path / "nowhere", Table.RECORDS)
    with pytest.raises(UserError, match="no records yet"):
        open_collection(tmp_path, Table.RECORDS)


def test_a_key_is_found_in_every_table_that_knows_it(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    two = Summary(rows=2, kept=2)
    pair = [{"key": "aa"}, {"key": "bb", "url": "u"}]
    collection.write(Table.CANDIDATES, "00000", pair, recipe="r", config=Config(), summary=two)
    assert collection.find("b")[Table.CANDIDATES]["url"] == "u"
    assert collection.find("c") == {}


def test_every_reason_that_pixels_give_is_a_status() -> None:
    assert set(get_args(Reason)) <= set(Status)


def test_the_funnel_follows_the_chain(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    dropped = Summary(rows=3, kept=1, dropped={"http_404": 2})
    row = {"key": "k", "status": Status.OK, "text_kind": CaptionKind.ALT}
    collection.write(Table.RECORDS, "00000", [row], recipe="r", config=Config(), summary=dropped)
    one = Summary(rows=1, kept=1)
    collection.write(Table.CANDIDATES, "00000", [{"key": "k"}], recipe="r", config=Config(), summary=one)
    assert [(row.table, row.summary) for row in collection.funnel()] == [("candidates", one), ("records", dropped)]
