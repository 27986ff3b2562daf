"""Tables beside images: a row that is not as its header says costs itself, whatever its bytes are."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dreamloom.base.tables.documents import DocumentError
from dreamloom.base.tables.tables import TableRow, caption_texts, captions_in_row, cell, field_names, read_table


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".CSV"])
@given(data=st.binary(max_size=200) | st.text("{}[]\":,;\t\n\r'a1\\NaN").map(str.encode))
@example(data=b'{"a": ' + b"[" * 9000)
@example(data=b'a,b\n"' + b"x" * 200_000)
@example(data=b'a\n"')
@example(data=b'{"a": "\\ud800"}')
def test_whatever_a_table_holds_its_rows_are_read_or_have_a_fault(
    suffix: str, data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / f"t{suffix}"
    path.write_bytes(data)
    for row in read_table(path):
        assert row.number >= 1 and not (row.fault and row.cells)


def rows(path: Path, content: str) -> list[TableRow]:
    path.write_text(content)
    return list(read_table(path))


def test_each_row_has_its_line(tmp_path: Path) -> None:
    assert rows(tmp_path / "t.jsonl", '\n{" a ": NaN}\n\n{broken\n[1]\n{"a": 1}') == [
        TableRow(2, {"a": None}),
        TableRow(4, {}, "not_json"),
        TableRow(5, {}, "not_an_object"),
        TableRow(6, {"a": 1}),
    ]
    assert rows(tmp_path / "t.csv", 'a , b\n1,"two\nlines"\n\n1,2,3\nNaN\n') == [
        TableRow(2, {"a": "1", "b": "two\nlines"}),
        TableRow(5, {}, "unquoted_comma"),
        TableRow(6, {"a": None}),
    ]
    (row,) = rows(tmp_path / "t.jsonl", '{"a": 1, "a": 2}')
    assert (row.cells, row.fault) == ({}, "repeated_key")


@pytest.mark.parametrize("start", ["sep=|\r\n", '"sep=|"\n', "SEP=|\n", "sep=|\r"])
def test_a_line_that_tells_excel_the_delimiter_is_no_header(tmp_path: Path, start: str) -> None:
    end = start[-1]
    text = f"{start}a|b;c{end}1|x, y, z; w{end}"
    assert rows(tmp_path / "t.csv", text) == [TableRow(3, {"a": "1", "b;c": "x, y, z; w"})]


def test_a_value_of_parquet_that_cannot_be_read_costs_its_row(tmp_path: Path) -> None:
    dates = pa.array([0, 2**62, 1], pa.int64()).view(pa.timestamp("us"))
    pq.write_table(pa.table({"n": [1, 2, 3], "at": dates}), tmp_path / "t.parquet")
    assert [(row.cells.get("n"), row.fault) for row in read_table(tmp_path / "t.parquet")] == [
        (1, ""),
        (None, "broken_row"),
        (3, ""),
    ]
    assert [row.cells for row in read_table(tmp_path / "t.parquet", "n".__eq__)] == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DocumentError):
        list(read_table(tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (None, []),
        (float("nan"), []),
        (7, []),
        (True, []),
        ({}, []),
        ([{}, "a"], ["a"]),
        (" \n", []),
        ("\u200b\u00a0\ufeff", []),
        ("\u202e\u2066\u200f\u00ad\u3164\ufe0f", []),
        (b"\0\0", []),
        ("nan", ["nan"]),
        (" a cat ", [" a cat "]),
        (["a", None, " ", ["b"]], ["a", "b"]),
        ("café".encode("latin-1"), ["café"]),
        ("\ud800\udce9", ["\ufffdé"]),
        ("['a cat', ' ', 'it\\'s']", ["a cat", "it's"]),
        ('["a cat"]', ["a cat"]),
        ("['a cat', 7]", ["['a cat', 7]"]),
        ("['a', " + "[" * 100_000, ["['a', " + "[" * 100_000]),
        ("[cat] on a mat", ["[cat] on a mat"]),
    ],
)
def test_captions_are_what_somebody_wrote(value: Any, texts: list[str]) -> None:
    assert caption_texts(value) == texts


def test_a_column_that_stands_twice_is_not_chosen_by_chance(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,caption, caption\nx.png,a,b\n")
    with pytest.raises(DocumentError, match="names the column caption twice"):
        list(read_table(tmp_path / "t.csv"))
    columns = [pa.array(["x.png"]), pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["image", "caption", "caption"]), tmp_path / "t.parquet")
    with pytest.raises(DocumentError, match="names the column caption twice"):
        list(read_table(tmp_path / "t.parquet"))


@pytest.mark.parametrize("value", [{"en": "a"}, [("en", "a"), ("de", "b")]])
def test_of_several_fields_one_has_to_be_named(value: Any) -> None:
    with pytest.raises(DocumentError, match="holds the fields en"):
        caption_texts(value)


def test_a_table_is_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "t.csv").touch()
    os.truncate(tmp_path / "t.csv", 40 * 2**30)  # of zeros, which take no space on the disk
    with pytest.raises(DocumentError, match="longer than 1,073,741,824 bytes"):
        list(read_table(tmp_path / "t.csv"))


def test_a_map_is_no_list_and_columns_of_one_name_are_told(tmp_path: Path) -> None:
    maps = pa.array([[("en", "a")]], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"text": maps}), tmp_path / "t.parquet")
    ((row,),) = [list(read_table(tmp_path / "t.parquet"))]
    assert row.cells == {"text": {"en": "a"}}
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", " text"])
    pq.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(DocumentError, match="names the column text twice"):
        list(read_table(tmp_path / "t.parquet"))


def test_a_field_of_a_column_is_named_with_a_dot() -> None:
    row = {"caption": {"en": "a", "more": {"de": "b"}}, "x.y": "c"}
    assert cell({"captions": [{"raw": "a"}, None, {"raw": "b"}]}, "captions.raw") == ["a", "b"]
    assert field_names([[], [{"raw": "a", "id": 1}]]) == ["raw", "id"] and field_names(["a", 5]) == []
    found = [cell(row, name) for name in ("caption.en", "caption.more.de", "x.y", "caption.fr", "no.en")]
    assert found == ["a", "b", "c", None, None]
    with pytest.raises(DocumentError, match="holds the fields en, more; name one of them"):
        caption_texts(row["caption"])


def test_captions_are_in_the_first_filled_column_of_a_usual_name() -> None:
    row = {"__key__": "a", "TXT": "of a shard", "Caption": " ", "jpg": b""}
    assert captions_in_row(row) == ["of a shard"]
    assert captions_in_row({"a": {"b": ["x", "", "y"]}}, "a.b") == ["x", "y"]
