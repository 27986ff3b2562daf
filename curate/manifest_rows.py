"""Makes the rows of the manifest (dreamloom.curate.manifest) of what balance decided."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pyarrow as pa

from dreamloom.base.tables.parquet_metadata import digest_table
from dreamloom.curate.balance import format_multiply
from dreamloom.curate.manifest import DROPPED, MANIFEST, TRAIN
from dreamloom.curate.split import Split

_CONTENT = ["split", "file", "multiply", "caption", "sha256"]
_DECIDED = ["loss_scale", "flip", "crop", "replaced", "focus"]
"""Columns that belong to the content where anything was decided."""


def make_manifest(rows: pa.Table, placed: Split, files: pa.Array, written: Mapping[int, str]) -> pa.Table:
    """Makes the rows of a manifest (MANIFEST).

    Args:
        rows: the history.
        placed: where each row goes.
        files: relative to the workspace; null where a row is dropped.
        written: row → hash of its file, where that is no link to the image.
    """
    import pyarrow.compute as pc

    reasons = pa.array(placed.reasons, pa.string())
    added = {
        "split": pa.array(placed.split, pa.string()),
        "file": files.cast(pa.string()),
        "file_sha256": _hashes(written, len(rows)),
        "multiply": _multiplies(placed, rows["source"]),
        "concepts": _concepts(placed),
        "stage": pc.if_else(reasons.is_valid(), "balance", rows["stage"].combine_chunks()),
        "reason": pc.coalesce(reasons, rows["reason"].combine_chunks()),
    }
    columns = [added[name] if name in added else rows[name] for name in MANIFEST.names]
    return pa.Table.from_arrays(columns, schema=MANIFEST)


def _hashes(written: Mapping[int, str], count: int) -> pa.Array:
    if not written:  # as nearly always
        return pa.nulls(count, pa.string())
    return pa.array([written.get(row) for row in range(count)], pa.string())


def _concepts(placed: Split) -> pa.Array:
    """Returns the concepts of each row, sorted; many rows have the same."""
    sorted_concepts: dict[frozenset[str], list[str]] = {}
    lists = [sorted_concepts.get(each) or sorted_concepts.setdefault(each, sorted(each)) for each in placed.concepts]
    return pa.array(lists, pa.list_(pa.string()))


def _multiplies(placed: Split, sources: pa.ChunkedArray) -> pa.Array:
    """Returns how often an epoch shows each row that is trained on, as multiply.txt and the YAML say it."""
    coded = sources.combine_chunks().dictionary_encode()
    ratings = {id(rating): rating for rating in placed.ratings}  # equal ones are one object: there are few
    numbers = {key: number for number, key in enumerate(ratings)}
    written = np.array(
        [
            [
                float(Fraction(format_multiply(placed.multiplies.get(name, Fraction(0)) * rating)))
                for rating in ratings.values()
            ]
            for name in coded.dictionary.to_pylist()
        ]
    )
    of_row = np.array([numbers[id(rating)] for rating in placed.ratings], dtype=np.int64)
    values = written[coded.indices.to_numpy(), of_row]
    return pa.array(values, pa.float64(), mask=np.array(placed.split) != TRAIN)


def digest_content(manifest: pa.Table) -> str:
    """Hashes what is trained on and measured by; see `dreamloom.curate.manifest.content_digest`."""
    import pyarrow.compute as pc

    rows = manifest.filter(pc.not_equal(manifest["split"], DROPPED))
    return digest_table(rows.select([*_CONTENT, *(name for name in _DECIDED if rows[name].null_count < len(rows))]))
