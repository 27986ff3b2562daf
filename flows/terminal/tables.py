"""Rows of tables for people: the funnel of each source, and the balance of the dataset."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamloom.base.stage import Summary
from dreamloom.curate.manifest import DROPPED, HELD_OUT, TRAIN, manifest_path, read_manifest
from dreamloom.curate.source import Role, workspace_collection, workspace_collections
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.schema import MADE_BY

Funnel = dict[str, dict[str, Summary]]
"""Source → stage → the counts of rows that came in, were kept and were dropped."""


def funnel(workspace: Path, sources: Iterable[str]) -> Funnel:
    """Returns the counts of each stage of these sources, and last those of balance."""
    counts = {name: collection_funnel(workspace_collection(workspace, name)) for name in sources}
    if manifest_path(workspace).exists():
        for name, summary in _dataset_summaries(workspace).items():
            if name in counts:
                counts[name]["balance"] = summary
    return counts


def collection_funnel(collection: Collection) -> dict[str, Summary]:
    """Returns the counts of each stage that filled a table of a collection."""
    tables = {Table(row.table): row.summary for row in collection.funnel()}
    records = "scrape" if Table.CANDIDATES in tables else "ingest"
    return {records if table is Table.RECORDS else MADE_BY[table]: summary for table, summary in tables.items()}


def funnel_rows(funnel: Funnel) -> list[dict[str, Any]]:
    """Returns a row for each source and stage: rows in, kept, and dropped by reason."""
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


def dropped_rows(funnel: Funnel) -> list[dict[str, Any]]:
    """Returns a row for each source and stage, followed by one for each reason for which it dropped rows."""
    rows: list[dict[str, Any]] = []
    for source, stages in funnel.items():
        for stage, summary in stages.items():
            where = {"source": source, "stage": stage}
            dropped = sum(summary.dropped.values())
            rows.append(where | {"in": summary.rows, "kept": summary.kept, "dropped": dropped, "reason": ""})
            most_first = sorted(summary.dropped.items(), key=lambda item: (-item[1], item[0]))
            rows += [
                where | {"in": None, "kept": None, "dropped": count, "reason": str(reason)}
                for reason, count in most_first
                if count
            ]
    return rows


def source_names(workspace: Path) -> list[str]:
    """Returns the names of all collections of a workspace."""
    return [collection.name for collection in workspace_collections(workspace)]


def balance_rows(workspace: Path) -> list[dict[str, Any]]:
    """Returns a row for each source of the dataset: images to train on, how often each is shown, how many held out."""
    columns = ["source", "role", "split", "multiply"]
    groups = read_manifest(manifest_path(workspace), columns).group_by(columns, use_threads=False)
    rows = groups.aggregate([([], "count_all")]).to_pylist()
    shown_of = {row["source"]: 0.0 for row in rows}
    counts = Counter[tuple[str, str]]()
    for row in rows:
        shown_of[row["source"]] += (row["multiply"] or 0.0) * row["count_all"]
        counts[row["source"], row["split"]] += row["count_all"]
    roles = {row["source"]: row["role"] for row in rows}
    table = [
        {
            "source": source,
            "role": roles[source],
            "images": counts[source, TRAIN],
            "multiply": round(shown_of[source] / max(1, counts[source, TRAIN]), 12),
            "shown per epoch": round(shown_of[source], 3),
            "held out": counts[source, HELD_OUT],
            "dropped": counts[source, DROPPED],
        }
        for source in roles
    ]
    shown = {role: sum(row["shown per epoch"] for row in table if row["role"] == role) for role in Role}
    ratio = shown[Role.GROUND_TRUTH] / shown[Role.TRAINING] if shown[Role.TRAINING] else 0.0
    total = {name: sum(row[name] for row in table) for name in ("images", "shown per epoch", "held out", "dropped")}
    last = {"source": "all", "role": f"ratio {ratio:.3g}", "multiply": None, **total}
    return [*table, {name: last[name] for name in table[0]}]


def _dataset_summaries(workspace: Path) -> dict[str, Summary]:
    """Source → the counts of balance: rows that it got, put into the training folder, and did not."""
    columns = ["source", "split", "stage", "reason"]
    groups = read_manifest(manifest_path(workspace), columns).group_by(columns, use_threads=False)
    counts: dict[str, Counter[str]] = {}
    for row in groups.aggregate([([], "count_all")]).to_pylist():
        if row["stage"] in (None, "balance"):  # earlier stages dropped the others
            reason = {TRAIN: TRAIN, HELD_OUT: "held out"}.get(row["split"], row["reason"])
            counts.setdefault(row["source"], Counter())[reason] += row["count_all"]
    return {
        source: Summary(rows=count.total(), kept=count.pop(TRAIN, 0), dropped=dict(count))
        for source, count in counts.items()
    }
