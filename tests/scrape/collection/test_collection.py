"""The contract: what is written is read, a part is whole or absent, and only a recipe decides what is stale."""

from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.base.images.pixels import Reason
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.scrape.collection import (
    SCHEMAS,
    CaptionKind,
    Collection,
    Status,
    Table,
    key_of,
    open_collection,
)


class Config(StageConfig):
    words: str = "a"


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_list(kind):
        return st.lists(values_of(kind.value_type), max_size=4)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: st.none() | values_of(field.type) for field in kind.fields})
    by_type: dict[Any, st.SearchStrategy[Any]] = {
        pa.bool_(): st.booleans(),
        pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        pa.int32(): st.integers(-(2**31), 2**31 - 1),
        pa.int64(): st.integers(-(2**63), 2**63 - 1),
        pa.float16(): st.floats(width=16, allow_nan=False),
        pa.float32(): st.floats(width=32, allow_nan=False),
    }
    return by_type[kind]


def rows_of(table: Table) -> st.SearchStrategy[list[dict[str, Any]]]:
    def values(field: pa.Field) -> st.SearchStrategy[Any]:
        if field.name in ("status", "choice", "kind", "text_kind"):
            return st.sampled_from(["ok", "kept", "human"])
        some = values_of(field.type)
        return some | st.none() if field.nullable else some

    row = st.fixed_dictionaries({f.name: values(f) for f in SCHEMAS[table]})
    return st.lists(row, max_size=8, unique_by=lambda r: r["key"])


@pytest.mark.slow
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
    summary = Summary(rows=1, kept=1)
    collection.write(Table.CANDIDATES, "00000", [{"key": "k"}], recipe="r", config=Config(), summary=summary)
    assert collection.read(Table.CANDIDATES).to_pylist()[0]["url"] is None
    with pytest.raises(ValueError, match="no column"):
        row = {"key": "k", "ulr": "x"}
        collection.write(Table.CANDIDATES, "00000", [row], recipe="r", config=Config(), summary=summary)


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


def test_a_downstream_recipe_follows_recipe_and_content(tmp_path: Path) -> None:
    collection = Collection(tmp_path)

    def stamp(recipe: str, key: str) -> str:
        summary = Summary(rows=1, kept=1)
        collection.write(Table.CANDIDATES, "00000", [{"key": key}], recipe=recipe, config=Config(), summary=summary)
        return collection.stamp(Table.CANDIDATES, "00000")

    assert stamp("r", "a") == stamp("r", "a")
    assert len({stamp("r", "a"), stamp("s", "a"), stamp("r", "b")}) == 3


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    collection.part_path(Table.RECORDS, "00000").parent.mkdir(parents=True)
    collection.part_path(Table.RECORDS, "00000").write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"00000\.parquet can't be read"):
        collection.recipe(Table.RECORDS, "00000")


def test_a_folder_that_is_no_collection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        open_collection(tmp_path / "nowhere", Table.RECORDS)
    with pytest.raises(UserError, match="no records yet; run scrape or ingest first"):
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
    summary = Summary(rows=1, kept=1)
    collection.write(Table.CANDIDATES, "00000", [{"key": "k"}], recipe="r", config=Config(), summary=summary)
    assert [(row.table, row.summary) for row in collection.funnel()] == [("candidates", summary), ("records", dropped)]
