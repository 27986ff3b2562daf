"""An index in S3: listed, its footers read, its columns read by DuckDB, through fsspec, from a server on loopback."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.files import find_index_files
from dreamloom.scrape.index.filter import filter_laion, is_current
from tests.s3 import S3


def test_an_index_in_s3_gives_what_the_same_files_give_here(tmp_path: Path, s3: type[S3]) -> None:
    for number in range(3):
        names = [f"http://h.org/{number}-{row}.jpg" for row in range(50)]
        table = pa.table(
            {"URL": names, "TEXT": ["a person"] * 50, "WIDTH": list(range(490, 540)), "HEIGHT": [600] * 50}
        )
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=20)
        s3.objects[f"laion/en/{number}.parquet"] = (tmp_path / f"{number}.parquet").read_bytes()
    s3.objects["laion/notes.txt"] = b"not of the index"
    near = Collection(tmp_path / "near")
    filter_laion(near, FilterConfig(index=[str(tmp_path / "*.parquet")]))
    expected = near.read(Table.CANDIDATES)
    assert len(expected) == 3 * 28
    for number, index in enumerate(["s3://bucket/laion/en", "s3://bucket/laion/*/*.parquet"]):
        far, config = Collection(tmp_path / f"far-{number}"), FilterConfig(index=[index])
        filter_laion(far, config)
        assert far.read(Table.CANDIDATES).equals(expected)
        assert is_current(far, config)
    assert s3.asked
    s3.objects["laion/en/1.parquet"] = s3.objects["laion/en/2.parquet"]
    assert not is_current(far, config)


@pytest.mark.parametrize("pattern", ["", "*.parquet", "**/*.parquet"])
def test_what_systems_leave_is_no_index(tmp_path: Path, pattern: str) -> None:
    pq.write_table(pa.table({"url": ["http://a/"]}), tmp_path / "0.parquet")
    for leaving in ("._0.parquet", "@eaDir/0.parquet", "$RECYCLE.BIN/1.parquet"):
        (tmp_path / leaving).parent.mkdir(exist_ok=True)
        (tmp_path / leaving).write_bytes(b"no parquet")
    assert [file.name for file in find_index_files([str(tmp_path / pattern)])] == [str(tmp_path / "0.parquet")]
