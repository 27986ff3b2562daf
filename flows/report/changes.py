"""What changed in a project's images since its last run: new and gone images, other captions, other licences.

report/last_run.parquet is the manifest as the last run left it, report/changes.json what this run found beside it.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dreamloom.base.files.atomic import commit_json, create_copy
from dreamloom.curate.manifest import DROPPED, content_digest, manifest_path, read_manifest

SHOWN = 200
"""Images that are named for each kind of change."""
_COLUMNS = ["source", "key", "file", "caption", "licence"]

Rows = list[dict[str, Any]]


def note_changes(workspace: Path) -> None:
    """Compares the manifest with that of the last run, and keeps it for the next; nothing where it is the same."""
    now, last = manifest_path(workspace), _last_run(workspace)
    if last.exists():
        if content_digest(last) == content_digest(now):
            return
        commit_json(_changes(workspace), find_changes(_used(last), _used(now)))
        last.unlink()  # ours: a copy of the manifest
    last.parent.mkdir(parents=True, exist_ok=True)
    create_copy(now, last)


def read_changes(workspace: Path) -> dict[str, Rows]:
    """Reads what the last run found: title → rows; empty where there was no run before it."""
    file = _changes(workspace)
    found: dict[str, Rows] = json.loads(file.read_bytes()) if file.exists() else {}
    return found


def find_changes(before: pa.Table, now: pa.Table) -> dict[str, Rows]:
    """Compares two manifests' used images.

    Returns:
        "By source": a row for each source with the counts of each kind of change; "Images": rows that name them,
        SHOWN of each kind.
    """
    both = now.join(before, ["source", "key"], join_type="full outer", right_suffix=" before")
    both = both.sort_by([("source", "ascending"), ("key", "ascending")])
    stays = pc.and_(pc.is_valid(both["file"]), pc.is_valid(both["file before"]))
    kinds = {
        "new": pc.is_null(both["file before"]),
        "gone": pc.is_null(both["file"]),
        "caption": pc.and_(stays, _differ(both, "caption")),
        "licence": pc.and_(stays, _differ(both, "licence")),
    }
    rows: dict[str, dict[str, Any]] = {}
    images: Rows = []
    for kind, mask in kinds.items():
        changed = both.filter(mask)
        for source, count in _counts(changed):
            rows.setdefault(source, {"source": source, **dict.fromkeys(kinds, 0)})[kind] = count
        images += [_image(kind, row) for row in changed.slice(0, SHOWN).to_pylist()]
    return {"By source": [rows[source] for source in sorted(rows)], "Images": images}


def _counts(changed: pa.Table) -> list[tuple[str, int]]:
    counted = changed.group_by("source").aggregate([([], "count_all")])
    return list(zip(counted["source"].to_pylist(), counted["count_all"].to_pylist(), strict=True))


def _differ(both: pa.Table, column: str) -> pa.ChunkedArray:
    now, before = (pc.fill_null(both[name], "") for name in (column, f"{column} before"))
    return pc.not_equal(now, before)


def _image(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    column = "licence" if kind == "licence" else "caption"
    image = Path(row["file"] or row["file before"]).name
    return {
        "change": kind,
        "source": row["source"],
        "image": image,
        "before": row[f"{column} before"] or "",
        "now": row[column] or "",
    }


def _used(manifest: Path) -> pa.Table:
    rows = read_manifest(manifest)
    return rows.filter(pc.not_equal(rows["split"], DROPPED)).select(_COLUMNS)


def _last_run(workspace: Path) -> Path:
    return workspace / "report" / "last_run.parquet"


def _changes(workspace: Path) -> Path:
    return workspace / "report" / "changes.json"
