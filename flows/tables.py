"""Tables of what lies on disk: the funnel of each source, the balance of the dataset, the rows of a collection."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamloom.base.stage import Summary
from dreamloom.curate.manifest import DROPPED, HELD_OUT, TRAIN, manifest_path, read_manifest
from dreamloom.curate.source import Role
from dreamloom.scrape.collection import Collection

Funnel = dict[str, dict[str, Summary]]
"""Source → table → what came in, went on, and was dropped."""


def funnel(workspace: Path, sources: Iterable[str]) -> Funnel:
    """The tables of these sources, and last what of each is in the training folder."""
    found = {name: _of(Collection(workspace / "collections" / name)) for name in sources}
    if manifest_path(workspace).exists():
        for name, summary in _drawn(workspace).items():
            if name in found:
                found[name]["dataset"] = summary
    return found


def funnel_rows(funnel: Funnel) -> list[dict[str, Any]]:
    """A row for each source and table: rows in, kept, and dropped by reason."""
    return [
        {
            "source": source,
            "stage": stage,
            "in": summary.rows,
            "kept": summary.kept,
            "marked": ", ".join(f"{mark} {count}" for mark, count in sorted(summary.marked.items())),
            "dropped": ", ".join(f"{reason} {count}" for reason, count in sorted(summary.dropped.items())),
        }
        for source, stages in funnel.items()
        for stage, summary in stages.items()
    ]


def source_names(workspace: Path) -> list[str]:
    """The names of all collections of a workspace."""
    return sorted(path.name for path in (workspace / "collections").glob("*/"))


def balance_rows(workspace: Path) -> list[dict[str, Any]]:
    """A row for each source of the dataset: images to train on, how often each is shown, how many are held out."""
    manifest = read_manifest(manifest_path(workspace))
    rows = manifest.select(["source", "role", "split", "multiply"]).to_pylist()
    multiply = {row["source"]: row["multiply"] for row in rows if row["split"] == TRAIN}
    role = {row["source"]: row["role"] for row in rows}
    counts = Counter((row["source"], row["split"]) for row in rows)
    table = [
        {
            "source": source,
            "role": role[source],
            "images": counts[source, TRAIN],
            "multiply": multiply.get(source, 0.0),
            "shown an epoch": round(counts[source, TRAIN] * multiply.get(source, 0.0), 3),
            "held out": counts[source, HELD_OUT],
            "dropped": counts[source, DROPPED],
        }
        for source in role
    ]
    shown = {kind: sum(row["shown an epoch"] for row in table if row["role"] == kind) for kind in Role}
    ratio = shown[Role.GROUND_TRUTH] / shown[Role.TRAINING] if shown[Role.TRAINING] else 0.0
    total = {name: sum(row[name] for row in table) for name in ("images", "shown an epoch", "held out", "dropped")}
    last = {"source": "all", "role": f"ratio {ratio:.3g}", "multiply": None, **total}
    return [*table, {name: last[name] for name in table[0]}]


def _of(collection: Collection) -> dict[str, Summary]:
    return {row.table: row.summary for row in collection.funnel()}


def _drawn(workspace: Path) -> dict[str, Summary]:
    """Source → what balance took in, put into the training folder, and did not."""
    manifest = read_manifest(manifest_path(workspace)).select(["source", "split", "stage", "reason"])
    fates: dict[str, Counter[str]] = {}
    for row in manifest.to_pylist():
        if row["stage"] in (None, "balance"):  # others were dropped before it
            fate = {TRAIN: TRAIN, HELD_OUT: "held out"}.get(row["split"], row["reason"])
            fates.setdefault(row["source"], Counter())[fate] += 1
    return {
        source: Summary(rows=fate.total(), kept=fate.pop(TRAIN, 0), dropped=dict(fate))
        for source, fate in fates.items()
    }
