"""The demo's index: LAION's joined schema, plausible values, and the rows that break careless readers."""

from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamloom.demo.gallery import exhibit
from dreamloom.demo.index import SCHEMA, index_rows, write_index
from dreamloom.demo.world import aesthetic, caption

SITE = "http://127.0.0.1:28417"
COUNT = 2000


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("world") / "index"
    write_index(folder, SITE, COUNT)
    return pq.read_table(folder)


def test_columns_and_types_are_those_of_laion_joined(table: pa.Table) -> None:
    assert table.schema.names == [
        "URL", "TEXT", "WIDTH", "HEIGHT", "similarity", "hash", "punsafe", "pwatermark", "aesthetic",
    ]  # fmt: skip
    assert table.schema.field("similarity").type == pa.float64()
    assert table.schema.field("hash").type == pa.int64()
    assert {table.schema.field(n).type for n in ("punsafe", "pwatermark", "aesthetic")} == {pa.float32()}


def test_equal_each_time_and_left_alone_when_there(tmp_path: Path, table: pa.Table) -> None:
    write_index(tmp_path / "index", SITE, COUNT)
    files = sorted((tmp_path / "index").iterdir())
    assert pq.read_table(tmp_path / "index").equals(table)
    assert [f.name for f in files] == ["part-00000.snappy.parquet", "part-00001.snappy.parquet"]
    written = [f.stat().st_mtime_ns for f in files]
    write_index(tmp_path / "index", "http://elsewhere", 10)
    assert [f.stat().st_mtime_ns for f in files] == written


def test_a_row_says_what_its_exhibit_is() -> None:
    plain, swapped, near = 0, 0, []
    for number, row in enumerate(index_rows(SITE, COUNT)[:COUNT]):
        shown = exhibit(number)
        assert urlsplit(row["URL"]).path == shown.path
        plain += row["TEXT"] == caption(shown.scene)
        if row["WIDTH"] is not None:
            assert {row["WIDTH"], row["HEIGHT"]} == {shown.width, shown.height}
            swapped += row["WIDTH"] != shown.width
        if row["aesthetic"] is not None:
            near.append(row["aesthetic"] - aesthetic(shown.scene))
    assert 0.6 < plain / COUNT < 0.72
    assert 0 < swapped / COUNT < 0.06  # a tenth of those that are not square
    assert abs(sum(near) / len(near)) < 0.05
    assert max(map(abs, near)) > 0.5


def test_nulls_outliers_and_bad_rows_at_laions_rates(table: pa.Table) -> None:
    def share(column: str, above: float) -> float:
        values = [v for v in table.column(column).to_pylist() if v is not None]
        return sum(bool(v > above) for v in values) / len(values)

    nulls = {name: table.column(name).null_count / len(table) for name in SCHEMA.names}
    assert nulls["hash"] == nulls["similarity"] == 0
    assert all(0 < nulls[n] < 0.08 for n in ("URL", "TEXT", "WIDTH", "punsafe", "pwatermark", "aesthetic"))
    assert 0.015 < share("punsafe", 0.5) < 0.05
    assert 0.04 < share("pwatermark", 0.8) < 0.09
    assert 0 < share("similarity", 1) < 0.01


def test_addresses_and_texts_repeat_and_some_are_hostile(table: pa.Table) -> None:
    urls = table.column("URL").to_pylist()
    texts = table.column("TEXT").to_pylist()
    assert 5 < len(urls) - len(set(urls)) < 100
    assert len(list(zip(urls, texts, strict=True))) > len(set(zip(urls, texts, strict=True)))
    assert {None, "", "file:///etc/passwd"} <= set(urls)
    assert any(url and not url.isascii() for url in urls)
    assert any(text and len(text) > 50_000 for text in texts)
    assert any(text and "\0" in text for text in texts)
    assert any(text and "&amp;" in text for text in texts)


def test_the_hash_tells_url_and_text_apart(table: pa.Table) -> None:
    rows = {(r["URL"], r["TEXT"]): r["hash"] for r in table.to_pylist()}
    assert len(set(rows.values())) == len(rows)
