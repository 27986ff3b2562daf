"""Traces one image: where it comes from, what each stage saw and decided, and where it lies now."""

import os.path
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from dreamloom.base.errors import UserError
from dreamloom.curate.explain import explain_limits
from dreamloom.curate.find import bare_names
from dreamloom.curate.manifest import DROPPED, manifest_path, read_collections, read_manifest
from dreamloom.curate.rules import explain_choice
from dreamloom.curate.scores import SCORES
from dreamloom.curate.source import is_workspace, workspace_collections
from dreamloom.scrape.collection import SCHEMAS, Choice, Collection, Status, Table
from dreamloom.scrape.collection.decisions import Decision

Lines = list[tuple[str, str]]
Row = dict[str, Any]

_MIN_KEY = 4
"""Minimum characters of a key that name it."""


def trace(folder: Path, image: str) -> Lines:
    """Returns what is known about an image, as lines of (subject, value), in the order of the chain.

    Args:
        folder: A workspace, any folder of its dataset or held-out images, or a collection.
        image: The name of its file there, or its key, or at least four characters of the key's beginning.

    Raises:
        UserError: the folder is none of these, or the name fits no image, or several.
    """
    folder = folder.resolve()
    workspace = _workspace(folder)
    if workspace is None:
        collection = _as_collection(folder)
        key = _find(collection, image)
        if key is None:
            raise _unknown(image, folder)
        return _trace_key(collection, key, _manifest_row(folder.parent.parent, key))
    row = _find_in_manifest(workspace, folder, image)
    if row is not None:
        return _trace_key(read_collections(workspace)[row["source"]], row["key"], row)
    for collection in workspace_collections(workspace):
        key = _find(collection, image)
        if key is not None:
            return _trace_key(collection, key, None)
    raise _unknown(image, folder)


def _workspace(folder: Path) -> Path | None:
    """Returns the workspace that `folder` is, or in whose dataset or held-out images it lies."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name a workspace, its dataset or a collection.")
    if manifest_path(folder).exists() or is_workspace(folder):
        return folder
    for parent in folder.parents:
        if manifest_path(parent).exists() and folder.relative_to(parent).parts[0] in ("dataset", "heldout"):
            return parent
    return None


def _as_collection(folder: Path) -> Collection:
    collection = Collection(folder)
    if not collection.parts(Table.RECORDS) and not collection.parts(Table.CANDIDATES):
        raise UserError(f"{folder} is no workspace, dataset or collection of dreamloom; name one.")
    return collection


def _find_in_manifest(workspace: Path, folder: Path, image: str) -> Row | None:
    """Returns the manifest's row of an image, by its file below `folder` or by its key; None where it has none."""
    if not manifest_path(workspace).exists():
        return None
    rows = read_manifest(manifest_path(workspace))
    files = pc.fill_null(rows["file"], "")
    inside = "" if folder == workspace else f"{folder.relative_to(workspace).as_posix()}/"
    named = pc.or_(pc.equal(files, image), pc.ends_with(files, f"/{image}"))
    matches = rows.filter(pc.and_(pc.starts_with(files, inside), named))
    if not len(matches):  # without its extension
        stem = rf"(^|/){re.escape(image)}\.[^./]+$"
        matches = rows.filter(pc.and_(pc.starts_with(files, inside), pc.match_substring_regex(files, stem)))
    if not len(matches) and len(image) >= _MIN_KEY:
        matches = rows.filter(pc.starts_with(rows["key"], image))
    _check_unique(image, [row["file"] or row["key"] for row in matches.slice(0, 4).to_pylist()])
    return dict(matches.to_pylist()[0]) if len(matches) else None


def _manifest_row(workspace: Path, key: str) -> Row | None:
    """Returns the manifest's row of a key; None where there is no manifest, or no such row."""
    if not manifest_path(workspace).exists():
        return None
    rows = read_manifest(manifest_path(workspace))
    matches = rows.filter(pc.equal(rows["key"], key)).to_pylist()
    return dict(matches[0]) if matches else None


def _find(collection: Collection, image: str) -> str | None:
    """Returns the key of an image, by the name of its file, stored or original, or by the key's beginning."""
    matches: dict[str, str] = {}
    without_extension: dict[str, str] = {}
    for part in collection.parts(Table.RECORDS):
        for row in collection.read(Table.RECORDS, part, ["key", "image", "path"]).to_pylist():
            names = Path(row["image"] or "").name, Path(row["path"] or "").name, row["path"] or ""
            if image in names:
                matches[row["key"]] = row["path"] or row["image"]
            elif any(image in bare_names(name) for name in names):
                without_extension[row["key"]] = row["path"] or row["image"]
    matches = matches or without_extension
    if not matches and len(image) >= _MIN_KEY:
        for table in (Table.RECORDS, Table.CANDIDATES):
            keys = collection.read(table, columns=["key"])["key"]
            matches |= {key: key for key in keys.filter(pc.starts_with(keys, image)).slice(0, 4).to_pylist()}
    _check_unique(image, list(matches.values()))
    return next(iter(matches), None)


def _check_unique(image: str, matches: Sequence[str]) -> None:
    if len(matches) > 1:
        raise UserError(
            f"Several images are called {image} ({', '.join(matches[:3])}, …); give more of the path, or the key."
        )


def _unknown(image: str, folder: Path) -> UserError:
    return UserError(f"No image of {folder} is called {image}; give a file's name, or the beginning of a key.")


def _trace_key(collection: Collection, key: str, manifest_row: Row | None) -> Lines:
    part, rows = _read_rows(collection, key)
    candidate, record = rows.get(Table.CANDIDATES, {}), rows.get(Table.RECORDS, {})
    lines = [("key", key), ("source", collection.name + (f" ({manifest_row['role']})" if manifest_row else ""))]
    lines += _origin({**candidate, **{name: value for name, value in record.items() if value is not None}})
    if candidate:
        lines += _passed("filter", explain_limits(collection.config(Table.CANDIDATES, part), candidate))
    lines += _record(collection, part, record, "scrape" if candidate else "ingest")
    lines += _scores(collection, part, rows.get(Table.SCORES))
    lines += _decisions(collection, key)
    lines += _choice(collection, part, rows, record)
    lines += _caption(rows.get(Table.CAPTIONS))
    return lines + (_placement(manifest_row) if manifest_row else [])


def _read_rows(collection: Collection, key: str) -> tuple[str, dict[Table, Row]]:
    """Returns the part that holds a key, and the key's row in each table."""
    for listing in (Table.RECORDS, Table.CANDIDATES):
        for part in collection.parts(listing):
            if pc.any(pc.equal(collection.read(listing, part, ["key"])["key"], key)).as_py():
                rows = {table: _row(collection, table, part, key) for table in Table}
                return part, {table: row for table, row in rows.items() if row}
    raise UserError(f"{collection.where} does not have {key}; run balance again, which makes a new manifest.")


def _row(collection: Collection, table: Table, part: str, key: str) -> Row | None:
    if part not in collection.parts(table):
        return None
    columns = [name for name in SCHEMAS[table].names if name != "embedding"]
    rows = collection.read(table, part, columns)
    matches = rows.filter(pc.equal(rows["key"], key)).to_pylist()
    return dict(matches[0]) if matches else None


def _origin(row: Row) -> Lines:
    licence = " ".join(row[name] for name in ("licence", "licence_url") if row.get(name))
    lines = [
        ("url", row.get("url")),
        ("path", row.get("path")),
        ("came with", row.get("text")),
        ("licence", licence or "unknown"),
        ("author", row.get("author")),
        ("consent", row.get("consent")),
        ("sha256", row.get("sha256")),
    ]
    return [(subject, value) for subject, value in lines if value]


def _passed(stage: str, sentences: Sequence[str]) -> Lines:
    return [(f"passed {stage}", sentence) for sentence in sentences]


def _record(collection: Collection, part: str, record: Row, stage: str) -> Lines:
    if not record:
        return [("status", f"not there yet; {stage} has not come to it")]
    if record["status"] != Status.OK:
        return [("dropped", _with(f"{stage}: {record['status']}", record["detail"]))]
    size = f"{record['width']} × {record['height']}"
    lines = [("status", record["status"]), ("image", f"{collection.place.describe(record['image'])} ({size})")]
    return lines + _passed(stage, explain_limits(collection.config(Table.RECORDS, part), record))


def _scores(collection: Collection, part: str, scores: Row | None) -> Lines:
    if scores is None:
        return []
    config = collection.config(Table.SCORES, part)
    return [
        (score.name, _with(f"{scores[score.name]:.3f}", _normalize(score.source(config))))
        for score in SCORES
        if score.source is not None and scores[score.name] is not None
    ]


def _decisions(collection: Collection, key: str) -> Lines:
    """Returns what was decided of an image and not taken back, with who and when, in order."""
    words = [word for (of, _), said in collection.decisions().words.items() if of == key for word in said]
    return [("decided", f"{word} on {word.time[:16].replace('T', ' ')} UTC") for word in sorted(words, key=_time)]


def _time(word: Decision) -> str:
    return word.time


def _choice(collection: Collection, part: str, rows: Mapping[Table, Row], record: Row) -> Lines:
    choice = rows.get(Table.CHOICES)
    if choice is None:
        unreadable = collection.parts(Table.CHOICES) and record.get("status") == Status.OK
        return [("dropped", "score: the image can't be decoded any more")] if unreadable else []
    if choice["choice"] != Choice.KEPT:
        return [("dropped", _with(f"choose: {choice['choice']}", choice["detail"]))]
    config = collection.config(Table.CHOICES, part)
    sentences = explain_choice(config, {**record, **rows.get(Table.SCORES, {})})
    return [("choice", choice["choice"]), *_passed("choose", sentences)]


def _caption(caption: Row | None) -> Lines:
    if caption is None:
        return []
    lines = [("caption", caption["caption"]), ("caption by", _with(caption["kind"], _normalize(caption["model"])))]
    if caption["unedited"] not in (None, caption["caption"]):
        lines.append(("before the edits", caption["unedited"]))
    if caption["similarity"] is not None:
        fits = _with(f"{caption['similarity']:.3f}", _normalize(caption["clip"]))
        lines.append(("caption fits", f"{fits}: doubtful" if caption["doubtful"] else fits))
    if len(candidates := caption["candidates"] or []) > 1:
        lines += [("candidate", f"{c['similarity']:.3f} {_with(c['caption'], c['kind'])}") for c in candidates]
    return lines


def _placement(row: Row) -> Lines:
    """Returns where the manifest has the image."""
    if row["split"] == DROPPED:
        return [("in the dataset", f"no: {row['stage']} dropped it as {_with(row['reason'], row['detail'])}")]
    lines = [("in the dataset" if row["multiply"] is not None else "held out", row["file"])]
    if row["multiply"] is not None:
        lines.append(("multiply", f"{row['multiply']:g} times per epoch"))
    return lines


def _normalize(model: str | None) -> str | None:
    """Returns a model's name for people: of a folder, its path without detours such as `a/../b`."""
    return model and os.path.normpath(model)


def _with(text: str, detail: str | None) -> str:
    return f"{text} ({detail})" if detail else text
