"""Makes a synthetic index in LAION's joined schema, of any number of rows, in two layouts of row groups."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

GROUP_ROWS = {"groups": 100_000, "one group": 2**31 - 1}
"""Layout → maximum rows of a row group; some of LAION's files have one group only."""

_FILE_ROWS = 5_000_000
_CHUNK = 500_000
_COMMON = (
    "a the of in with on and for photo image vector portrait woman man person girl dog cat house car street city old "
    "new red blue green white black wedding beach art print poster stock free design shirt hotel room garden kitchen"
)
_HOSTS = (
    "i.pinimg.com cdn.shopify.com images-na.ssl-images-amazon.com thumbs.dreamstime.com c8.alamy.com "
    "media.istockphoto.com img.etsystatic.com live.staticflickr.com upload.wikimedia.org static1.squarespace.com"
)


def make_index(folder: Path, rows: int, group_rows: int) -> list[Path]:
    """Writes files of URL, TEXT, WIDTH, HEIGHT, similarity, hash, punsafe, pwatermark and aesthetic.

    About 29 % have both sides of 512 pixels, 3 % are unsafe, 4 % have no scores, 4 % mention a man, woman or person,
    1 % repeat a URL, 30 % are on stock sites; a caption has about 80 letters.
    """
    folder.mkdir(parents=True)
    paths: list[Path] = []
    for start in range(0, rows, _FILE_ROWS):
        paths.append(folder / f"part-{len(paths):05d}.parquet")
        chunks = _chunks(start, min(_FILE_ROWS, rows - start))
        with pq.ParquetWriter(paths[-1], _chunk(0, 1).schema, compression="snappy") as writer:
            for some in [chunks] if group_rows >= _FILE_ROWS else ([chunk] for chunk in chunks):
                writer.write_table(pa.Table.from_batches(some), row_group_size=group_rows)
    return paths


def _chunks(start: int, rows: int) -> Iterator[pa.RecordBatch]:
    for at in range(start, start + rows, _CHUNK):
        yield _chunk(at, min(_CHUNK, start + rows - at))


def _chunk(start: int, rows: int) -> pa.RecordBatch:
    rng = np.random.default_rng([2026, start])
    width = np.exp(rng.normal(6.0, 0.65, rows)).astype(np.int32)
    height = (width * np.exp(rng.normal(0.0, 0.35, rows))).astype(np.int32)
    no_score = rng.random(rows) < 0.04
    columns = {
        "URL": _urls(rng, start, rows),
        "TEXT": _texts(rng, rows),
        "WIDTH": pa.array(width),
        "HEIGHT": pa.array(height),
        "similarity": pa.array(rng.normal(0.33, 0.03, rows)),
        "hash": pa.array(rng.integers(-(2**63), 2**63 - 1, rows)),
        "punsafe": pa.array((rng.random(rows) ** 12).astype(np.float32), mask=no_score),
        "pwatermark": pa.array((rng.random(rows) ** 3).astype(np.float32), mask=no_score),
        "aesthetic": pa.array(rng.normal(5.0, 0.7, rows).astype(np.float32)),
    }
    return pa.RecordBatch.from_pydict(columns)


def _urls(rng: np.random.Generator, start: int, rows: int) -> pa.Array:
    """Returns distinct URLs; one in a hundred repeats an earlier one."""
    numbers = np.arange(start, start + rows)
    again = rng.random(rows) < 0.01
    numbers[again] = rng.integers(0, start + rows, int(again.sum()))
    hosts = _HOSTS.split()
    host = pa.array(hosts).take(pa.array(numbers % len(hosts)))
    folder = pc.cast(pa.array(numbers * 2654435761 % 2**40), pa.string())
    name = pc.cast(pa.array(numbers), pa.string())
    return pc.binary_join_element_wise("https://", host, "/media/", folder, "/", name, ".jpg", "")


def _texts(rng: np.random.Generator, rows: int) -> pa.Array:
    """Returns texts of ten words, one in ten of them common."""
    letters = np.random.default_rng(1)
    rare = ["".join(chr(97 + c) for c in letters.integers(0, 26, n)) for n in letters.integers(4, 11, 4000)]
    common = _COMMON.split()
    words = pa.array(common + rare)
    columns = []
    for _ in range(10):
        some = np.where(rng.random(rows) < 0.1, len(common), len(words))
        columns.append(words.take(pa.array((rng.random(rows) * some).astype(np.int32))))
    return pc.binary_join_element_wise(*columns, " ")
