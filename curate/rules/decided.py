"""The rule that drops what a decision drops. What one keeps, no rule drops (dreamloom.curate.choose)."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules.dedupe import Rows
from dreamloom.curate.rules.rule import Images, Rule
from dreamloom.scrape.collection import Choice
from dreamloom.scrape.collection.decisions import Decision, What

COLUMNS = ("decided", "decision")
"""Columns of `Images.table`: keep, drop or null, and the decision in words."""


def decided_columns(keys: pa.ChunkedArray, decisions: Mapping[str, Decision]) -> dict[str, pa.Array]:
    """Returns `COLUMNS` for these keys.

    Args:
        keys: of the images.
        decisions: Key → the keep or drop that counts.
    """
    import pyarrow.compute as pc

    at = pc.index_in(keys, pa.array(list(decisions), pa.string())).combine_chunks()
    whats = pa.array([str(decision.what) for decision in decisions.values()], pa.string())
    words = pa.array([_words(decision) for decision in decisions.values()], pa.string())
    return dict(zip(COLUMNS, (whats.take(at), words.take(at)), strict=True))


def _words(decision: Decision) -> str:
    return f"by {decision.who}" + (f": {decision.reason}" if decision.reason else "")


def _find(images: Images, rows: Rows, config: ChooseConfig) -> dict[int, str]:
    import pyarrow.compute as pc

    dropped = pc.fill_null(pc.equal(images.table["decided"], str(What.DROP)), False).to_numpy()
    found = rows[dropped[rows]]
    return dict(zip(found.tolist(), images.table["decision"].take(found).to_pylist(), strict=True))


def _explain(config: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    return None


DECIDED = Rule(Choice.DECIDED, _find, _explain)
