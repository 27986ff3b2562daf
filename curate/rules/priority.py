"""Which of several copies stays: by role, then by decision, size, bytes a pixel, and a human caption.

More bytes a pixel mean fewer artefacts of compression, as copies of one image have the same detail.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import CaptionKind
from dreamloom.scrape.collection.decisions import What

COLUMNS = ("width", "height", "bytes", "text_kind")
"""The columns of records that it looks at."""
RULE = "training first, then the larger, then more bytes a pixel, then a human caption"


def rank(table: pa.Table, sources: Sequence[Source]) -> NDArray[np.int64]:
    """Returns each row's place when copies compete, 0 for the best; of equal ones, the first of its source.

    Args:
        table: the images, with their source's number, what is decided, and `COLUMNS`.
        sources: what the numbers stand for.
    """
    import pyarrow.compute as pc

    is_kept = pc.fill_null(pc.equal(table["decided"], str(What.KEEP)), False).to_numpy()
    pixels = _numbers(table, "width") * _numbers(table, "height")
    number = table["source"].to_numpy()
    role = np.array([list(Role).index(source.role) for source in sources])[number]
    is_human = pc.equal(table["text_kind"], CaptionKind.HUMAN).fill_null(False).to_numpy()
    order = np.lexsort((number, ~is_human, -_numbers(table, "bytes") / np.maximum(pixels, 1), -pixels, ~is_kept, role))
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return places


def explain(stayed: Mapping[str, Any], dropped: Mapping[str, Any], sources: Sequence[Source]) -> str:
    """Says why one of two copies stayed: "which is larger: 640 × 480, not 320 × 240"."""
    roles = [sources[row["source"]].role for row in (stayed, dropped)]
    if roles[0] is not roles[1]:
        return f"which is of {roles[0].replace('_', ' ')}"
    if (stayed["decided"] == What.KEEP) is not (dropped["decided"] == What.KEEP):
        return "which a decision keeps"
    sides = [(row["width"] or 0, row["height"] or 0) for row in (stayed, dropped)]
    pixels = [width * height for width, height in sides]
    if pixels[0] != pixels[1]:
        sizes = [f"{width} × {height}" for width, height in sides]
        return f"which is larger: {sizes[0]}, not {sizes[1]}"
    weights = [row["bytes"] or 0 for row in (stayed, dropped)]
    if weights[0] != weights[1]:
        each = [f"{size / max(1, pixels[0]):.2f}" for size in weights]
        return f"which is less compressed: {each[0]} bytes a pixel, not {each[1]}"
    if (stayed["text_kind"] == CaptionKind.HUMAN) is not (dropped["text_kind"] == CaptionKind.HUMAN):
        return "which has a human caption"
    return "which comes first"


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    return np.asarray(table[name].cast(pa.int64()).fill_null(0).to_numpy())
