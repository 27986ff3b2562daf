"""A collection as Arrow, as pandas, in SQL, and as a notebook shows it."""

from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.scrape.collection import CaptionKind, Collection, Status, Table, key_of

HOSTILE = '<script>alert("x")</script>'


class _Config(StageConfig):
    pass


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """Two parts: an image each, one with a caption by a stranger, and a row that failed."""
    made = Collection(str(tmp_path / "cats & dogs"))
    for part, colour in (("00000", "red"), ("00001", "blue")):
        key = key_of("test", part)
        image = made.image_folder(part) / f"{key}.png"
        image.parent.mkdir(parents=True)
        Image.new("RGB", (300, 200), colour).save(image)
        rows = [
            {
                "key": key,
                "status": Status.OK,
                "text": f"a {colour} thing",
                "text_kind": CaptionKind.ALT,
                "width": 300,
                "image": str(image.relative_to(made.root)),
            },
            {"key": key_of("test", part, "gone"), "status": Status.HTTP_404, "text_kind": CaptionKind.NONE},
        ]
        summary = Summary(rows=2, kept=1, dropped={"http_404": 1}, parts_done=1)
        made.write(Table.RECORDS, part, rows, recipe="r", config=_Config(), summary=summary)
        embedding = [{"key": key, "embedding": [0.5, 1.5]}]
        made.write(Table.SCORES, part, embedding, recipe="r", config=_Config(), summary=Summary(rows=1, kept=1))
    caption = [{"key": key_of("test", "00000"), "caption": HOSTILE, "kind": CaptionKind.MODEL}]
    made.write(Table.CAPTIONS, "00000", caption, recipe="r", config=_Config(), summary=Summary(rows=1, kept=1))
    return made


# Tables


def test_a_table_is_arrow_and_arrow_backed_pandas(collection: Collection) -> None:
    records = collection.table("records")
    assert records.to_arrow().equals(collection.read(Table.RECORDS))
    frame = records.to_pandas()
    assert isinstance(frame, pd.DataFrame) and len(frame) == len(records) == 4
    assert all(isinstance(kind, pd.ArrowDtype) for kind in frame.dtypes)
    assert frame["width"].isna().sum() == 2 and frame["width"].dtype == pd.ArrowDtype(pa.int32())


def test_other_libraries_take_a_table_as_it_is(collection: Collection) -> None:
    records = collection.table(Table.RECORDS, columns=["key", "status"])
    assert records.columns == ["key", "status"]
    assert pa.table(records).equals(records.to_arrow())


def test_a_table_without_parts_has_no_rows(tmp_path: Path) -> None:
    assert len(Collection(tmp_path / "nothing").table("choices")) == 0
    assert not (tmp_path / "nothing").exists()


def test_what_is_no_table_or_column_is_said(collection: Collection) -> None:
    with pytest.raises(UserError, match="There is no table caption; a collection has candidates, records"):
        collection.table("caption")
    with pytest.raises(UserError, match="captions has no column text; it has key, caption, "):
        collection.table("captions", columns=["key", "text"])


# SQL


def test_a_query_joins_tables_over_all_parts(collection: Collection) -> None:
    counts = collection.query("select status, count(*) as n, sum(width) as w from records group by all order by status")
    assert counts.to_arrow().to_pylist() == [
        {"status": "http_404", "n": 2, "w": None},
        {"status": "ok", "n": 2, "w": 600},
    ]
    joined = collection.query("select caption, width from captions join records using (key)")
    assert joined.to_pandas()["caption"].tolist() == [HOSTILE]
    assert collection.query("select list_sum(embedding) as s from scores").to_arrow()["s"].to_pylist() == [2.0, 2.0]
    assert len(collection.query("from choices")) == 0


@pytest.mark.parametrize(
    "sql",
    [
        "copy records to '{folder}/out.csv'",
        "select * from read_text('{folder}/secret.txt')",
        "attach '{folder}/other.db'",
        "select 1; select 2",
        "",
        "selec",
        "select * from nothing",
        "set enable_external_access = true",
    ],
)
def test_a_query_reads_the_tables_and_nothing_else(collection: Collection, tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError):
        collection.query(sql.format(folder=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_parts_can_be_read_by_duckdb_alone(collection: Collection) -> None:
    pattern = collection.root / "captions" / "*.parquet"
    assert duckdb.sql(f"select count(*) from read_parquet('{pattern}')").fetchall() == [(1,)]


# What a notebook shows


def test_a_collection_shows_its_funnel_and_some_images(collection: Collection) -> None:
    page = collection._repr_html_()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "http_404 2" in page and "a blue thing" in page
    assert "cats &amp; dogs" in page and HOSTILE not in page and "&lt;script&gt;" in page


def test_an_image_that_is_gone_or_broken_is_shown_as_its_reason(collection: Collection) -> None:
    first, second = (path for path, _ in collection.samples() if isinstance(path, Path))
    first.unlink()
    second.write_bytes(b"no image")
    page = collection._repr_html_()
    assert "data:image" not in page and "a blue thing" in page


def test_samples_are_the_first_images_with_their_captions(collection: Collection) -> None:
    assert [caption for _, caption in collection.samples()] == [HOSTILE, "a blue thing"]
    assert [caption for _, caption in collection.samples(1)] == [HOSTILE]


def test_an_empty_collection_can_be_shown(tmp_path: Path) -> None:
    assert Collection(tmp_path / "nothing")._repr_html_() == "<b>nothing</b>"


def test_a_table_shows_its_first_rows_escaped(collection: Collection) -> None:
    page = collection.table("captions")._repr_html_()
    assert HOSTILE not in page and "&lt;script&gt;" in page
    long = collection.query("select repeat('x', 1000) as x, i from range(30) as t(i)")
    assert "x" * 81 not in long._repr_html_() and "20 more rows" in long._repr_html_()
    assert repr(long) == "<30 rows: x, i>"


def test_a_summary_shows_what_was_dropped(collection: Collection) -> None:
    page = Summary(rows=3, kept=1, dropped={"<b>": 2})._repr_html_()
    assert "&lt;b&gt; 2" in page and "<b>" not in page
