"""Lists of addresses and nested columns are an index like any other, and a row that can't be read costs itself."""

import gzip
import json
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.stage import Summary
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.files import IndexFile
from dreamloom.scrape.index.filter import explain, filter_laion
from dreamloom.scrape.index.words import Words

URLS = [f"http://a.org/{number}.jpg" for number in range(3)]


def filtered(path: Path, **config: Any) -> tuple[list[tuple[str, str | None]], Summary]:
    collection = Collection(path.parent / f"of-{len(list(path.parent.iterdir()))}")
    summary = filter_laion(collection, FilterConfig(index=[str(path)], **config))
    rows = collection.read(Table.CANDIDATES).to_pylist()
    assert not [each for each in collection.root.iterdir() if each.name.startswith(".tmp")]
    return [(row["url"], row["text"]) for row in rows], summary


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("i.csv", b"link,title\n%s,a\n%s,b\n"),
        ("i.csv", b"\xef\xbb\xbf link ; title \r\n%s;a\r\n%s;b\r\n"),
        ("i.csv", b'title,link\n"a",%s\n"b","%s"\n'),
        ("i.csv", b"sep=|\r\nlink|title\r\n%s|a\r\n%s|b\r\n"),
        ("i.csv", b"link|title\n%s|a\n%s|b\n"),
        ("i.tsv", b"\xef\xbb\xbfsep=;\nlink;title\n%s;a\n%s;b\n"),
        ("i.TSV", b"link\ttitle\n%s\ta\n\n%s\tb\n"),
        ("i.ndjson", b'{"link": "%s", "title": "a"}\n{"title": "b", "link": "%s"}\n'),
        ("i.csv", b"link,title,\xff\n%s,a,x\n%s,b,y\n"),
        ("i.jsonl", b'{"link": "%s", "title": "a"}\n{"title": "b", "link": "%s"}\n'),
        ("i.json", b' [{"link": "%s", "title": "a"},\n {"title": "b", "link": "%s"}]'),
        ("i.json", b'{"link": "%s", "title": "a"}\n{"title": "b", "link": "%s"}\n'),
        ("i.csv.gz", b"link,title\n%s,a\n%s,b\n"),
    ],
)
def test_named_columns_of_a_list_are_read(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    content %= URLS[0].encode(), URLS[1].encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    rows, summary = filtered(path, url_column="link", text_column="title")
    assert rows == [(URLS[0], "a"), (URLS[1], "b")]
    assert (summary.rows, summary.kept, summary.dropped) == (2, 2, {})


def test_a_long_json_is_read_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamloom.scrape.index.lists.MAX_DOCUMENT_BYTES", 50)
    rows = [json.dumps({"url": url}) for url in URLS]
    (tmp_path / "i.json").write_text("\n".join(rows))
    assert filtered(tmp_path / "i.json")[0] == [(url, None) for url in URLS]
    (tmp_path / "i.json").write_text(f"[{','.join(rows)}]")
    assert IndexFile(str(tmp_path / "i.json")).count_rows() == 3
    with pytest.raises(UserError, match="longer than 50 characters; save it as JSON lines"):
        filtered(tmp_path / "i.json")


def test_addresses_alone_and_lists_without_header(tmp_path: Path) -> None:
    (tmp_path / "i.txt").write_text("\n".join(URLS) + "\n")
    assert filtered(tmp_path / "i.txt")[0] == [(url, None) for url in URLS]
    (tmp_path / "i.tsv").write_text(f'a "quoted cat\t{URLS[0]}\n"b\t{URLS[1]}\n')
    assert filtered(tmp_path / "i.tsv")[0] == [(URLS[0], 'a "quoted cat'), (URLS[1], '"b')]
    (tmp_path / "i16.csv").write_text(f"url,text,width,height\n{URLS[0]},ä,600,600\n{URLS[1]},b,10,600\n", "utf-16")
    assert filtered(tmp_path / "i16.csv")[0] == [(URLS[0], "ä")]
    for encoding in ("utf-16-le", "utf-16-be", "utf-32"):
        (tmp_path / "i16.csv").write_text(f"url,text\n{URLS[0]},ä\n", encoding)
        assert filtered(tmp_path / "i16.csv")[0] == [(URLS[0], "ä")]
    assert IndexFile(str(tmp_path / "i.txt")).count_rows() == 3


def test_a_row_of_a_list_that_can_t_be_read_costs_itself(tmp_path: Path) -> None:
    good = json.dumps({"url": URLS[0], "text": "a"}).encode()
    bad = [b"{", b"7", b"[" * 100_000, b'{"url": "x", "text": "\xff"}', b"x" * (2**20 + 7)]
    (tmp_path / "i.jsonl").write_bytes(b"\n".join([*bad, good]))
    rows, summary = filtered(tmp_path / "i.jsonl")
    assert rows == [(URLS[0], "a")]
    assert (summary.rows, summary.dropped) == (6, {"broken_row": 3, "not_utf8": 1, "too_long": 1})
    cell = "x" * 200_000
    (tmp_path / "i.csv").write_bytes(f"url,text\n{URLS[0]},a,b\n{cell},a\n".encode() + URLS[1].encode() + b",\xfc\n")
    rows, summary = filtered(tmp_path / "i.csv")
    assert (rows, summary.dropped) == ([], {"broken_row": 2, "not_utf8": 1})


def test_a_list_without_the_column_is_refused_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"i\.csv has no column named url \(it has a, b\)"):
        explain(FilterConfig(index=[str(tmp_path / "i.csv")]))


def parquet(path: Path, texts: pa.Array, name: str = "text") -> Path:
    pq.write_table(pa.table({"url": URLS[: len(texts)], name: texts}), path)
    return path


def test_of_a_list_the_first_caption_and_numbers_are_none(tmp_path: Path) -> None:
    texts = pa.array([["", "a cat", "a dog"], [], None])
    path = parquet(tmp_path / "1.parquet", texts)
    assert [text for _, text in filtered(path)[0]] == ["a cat", None, None]
    assert [text for _, text in filtered(path, words=Words(any=["cat"]))[0]] == ["a cat"]
    for numbers in (pa.array([1, 2, 3]), pa.array([float("nan"), 1.5, None]), pa.array([[1], [2], [3]])):
        assert [text for _, text in filtered(parquet(tmp_path / "2.parquet", numbers))[0]] == [None] * 3


def test_a_field_of_a_column_is_named_or_asked_for(tmp_path: Path) -> None:
    fields = [{"en": "a cat", "all": {"de": ["eine Katze"]}}, {"en": None, "all": None}, None]
    path = parquet(tmp_path / "1.parquet", pa.array(fields), "caption")
    with pytest.raises(UserError, match=r"fields en, all; name one of them: text_column: caption\.en"):
        explain(FilterConfig(index=[str(path)]))
    assert [text for _, text in filtered(path, text_column="Caption.EN")[0]] == ["a cat", None, None]
    assert [text for _, text in filtered(path, text_column="caption.all.de")[0]] == ["eine Katze", None, None]
    with pytest.raises(UserError, match=r"no column named caption\.fr"):
        explain(FilterConfig(index=[str(path)], text_column="caption.fr"))
    lines = tmp_path / "i.jsonl"
    lines.write_text(json.dumps({"url": URLS[0], "caption": {"en": "a cat"}}))
    assert filtered(lines, text_column="caption.en")[0] == [(URLS[0], "a cat")]
    with pytest.raises(UserError, match="holds the fields en"):
        explain(FilterConfig(index=[str(lines)]))


def test_text_that_is_not_utf8_costs_its_row_and_its_file_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*texts: bytes) -> pa.Array:
        return pa.array(texts, pa.binary()).view(pa.string())

    good, bad = tmp_path / "index" / "good.parquet", tmp_path / "index" / "bad.parquet"
    good.parent.mkdir()
    pq.write_table(pa.table({"url": ["http://b.org/1"], "text": ["fine"]}), good)
    pq.write_table(pa.table({"url": URLS, "text": broken(b"a cat", b"caf\xe9", b"a dog")}), bad)
    with caplog.at_level(logging.WARNING):
        rows, summary = filtered(good.parent, unscored="keep")
    assert rows == [(URLS[0], "a cat"), (URLS[2], "a dog"), ("http://b.org/1", "fine")]
    assert (summary.rows, summary.kept, summary.dropped) == (4, 3, {"not_utf8": 1})
    assert "bad.parquet: 1 rows" in caplog.text
    assert "good.parquet" not in caplog.text


def test_a_bad_text_in_a_list_or_a_dictionary_costs_its_row_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = pa.array([b"a cat", b"caf\xe9", b"a dog"], pa.binary()).view(pa.string())
    columns = [texts.dictionary_encode(), pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), texts)]
    for column in columns:
        pq.write_table(pa.table({"url": URLS, "text": column}), tmp_path / "i.parquet")
        assert filtered(tmp_path / "i.parquet")[0] == [(URLS[0], "a cat"), (URLS[2], "a dog")]
    (tmp_path / "i.csv").write_bytes(f"url,text\n{URLS[0]},caf\xe9\n{URLS[1]},b\n".encode("latin-1"))
    assert filtered(tmp_path / "i.csv")[0] == [(URLS[1], "b")]
    assert "i.csv: 1 rows have text that is not UTF-8" in caplog.text


def test_nulls_as_programs_write_them_are_no_captions(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text(f"url,text\n{URLS[0]},NaN\n{URLS[1]},None\n{URLS[2]},nan bread\n")
    assert [text for _, text in filtered(tmp_path / "i.csv")[0]] == [None, None, "nan bread"]
    (tmp_path / "i.csv").write_text(f"url,text,text\n{URLS[0]},a,b\n")
    with pytest.raises(UserError, match="names the column text twice"):
        filtered(tmp_path / "i.csv")


def test_a_folder_of_lists_is_an_index(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "README.txt").write_text("see http://a.org\n")
    (folder / "1.CSV").write_text(f"url\n{URLS[1]}\n")
    (folder / "0.csv").write_text(f"url\n{URLS[0]}\n")
    assert filtered(folder)[0] == [(URLS[0], None), (URLS[1], None)]
    pq.write_table(pa.table({"url": URLS}), folder / "0.parquet")
    assert len(filtered(folder)[0]) == 3


def test_captions_of_lists_of_lists_are_texts_and_maps_are_none(tmp_path: Path) -> None:
    assert filtered(parquet(tmp_path / "i.parquet", pa.array([[["", "a"], ["b"]]])))[0] == [(URLS[0], "a")]
    for texts, what in (
        (pa.array([[{"raw": "a"}]]), "lists of fields"),
        (pa.array([[("en", "a")]], pa.map_(pa.string(), pa.string())), "maps"),
    ):
        with pytest.raises(UserError, match=f"the column text holds {what}"):
            filtered(parquet(tmp_path / "i.parquet", texts))


def test_bytes_that_are_not_utf8_cost_their_row_and_damage_names_its_file(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", "ä".encode()], pa.binary())
    rows, summary = filtered(parquet(tmp_path / "i.parquet", texts))
    assert rows == [(URLS[0], "a"), (URLS[2], "ä")]
    assert summary.dropped["not_utf8"] == 1
    good, bad = parquet(tmp_path / "0.parquet", pa.array(["a"])), parquet(tmp_path / "1.parquet", pa.array(["b"]))
    data = bytearray(bad.read_bytes())
    data[4:40] = b"\xff" * 36
    bad.write_bytes(data)
    with pytest.raises(UserError, match=r"1\.parquet can't be read"):
        filter_laion(Collection(tmp_path / "c"), FilterConfig(index=[str(good), str(bad)], min_side=None))


@pytest.mark.parametrize("begin", [b"PAR1\x15\x04", b"PK\x03\x04\x14", b"\x1f\x8b\x08\0"])
def test_a_list_that_is_no_text_is_told(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "i.csv").write_bytes(begin + b"http://a.org/1.jpg\n")
    with pytest.raises(UserError, match="and no text"):
        filtered(tmp_path / "i.csv")


def test_a_file_whose_name_is_not_utf8_is_told(tmp_path: Path) -> None:
    path = parquet(tmp_path / "i.parquet", pa.array(["a"]))
    path.rename(tmp_path / os.fsdecode(b"\xff.parquet"))
    with pytest.raises(UserError, match="a name that is not UTF-8"):
        explain(FilterConfig(index=[str(tmp_path)]))
    (tmp_path / "i.csv.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match=r"i\.csv\.gz can't be read \(Compressed file ended"):
        explain(FilterConfig(index=[str(tmp_path / "i.csv.gz")]))
    (tmp_path / "i.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match="Lists of addresses end in"):
        explain(FilterConfig(index=[str(tmp_path / "i.xlsx")]))
