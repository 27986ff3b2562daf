"""The history of one image: where it comes from, what each stage saw and decided, and where it lies now."""

import os.path
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from dreamloom.base.clip_config import clip_name
from dreamloom.base.errors import UserError
from dreamloom.curate.assemble import DROPPED, manifest_path, read_manifest, read_sources
from dreamloom.curate.explain import rules
from dreamloom.scrape.collection import SCHEMAS, Choice, Collection, Status, Table

Lines = list[tuple[str, str]]
Row = dict[str, Any]

_LEAST = 4
"""Characters of a key that name it."""


def trace(folder_or_collection: Path, picture: str) -> Lines:
    """What is known of an image, as lines of (what, value), in the order in which it came about.

    Args:
        folder_or_collection: a workspace, any folder of its dataset or held-out images, or a collection.
        image: the name of its file there, or its key, or at least four characters of the key's beginning.

    Raises:
        UserError: the folder is none of these, or no image or several go by this name.
    """
    folder = folder_or_collection.resolve()
    workspace = _workspace(folder)
    if workspace is None:
        collection = _as_collection(folder)
        key = _find(collection, picture)
        if key is None:
            raise _unknown(picture, folder)
        return _history(collection, key, _placed_row(folder.parent.parent, key))
    found = _in_manifest(workspace, folder, picture)
    if found is not None:
        roots = {source["name"]: workspace / source["root"] for source in read_sources(manifest_path(workspace))}
        return _history(Collection(roots[found["source"]].resolve()), found["key"], found)
    for root in sorted((workspace / "collections").glob("*/")):
        key = _find(Collection(root), picture)
        if key is not None:
            return _history(Collection(root), key, None)
    raise _unknown(picture, folder)


def _workspace(folder: Path) -> Path | None:
    """The workspace that `folder` is, or lies in as a part of what was assembled."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name a workspace, its dataset, or a collection.")
    if manifest_path(folder).exists() or (folder / "collections").is_dir():
        return folder
    for parent in folder.parents:
        if manifest_path(parent).exists() and folder.relative_to(parent).parts[0] in ("dataset", "heldout"):
            return parent
    return None


def _as_collection(folder: Path) -> Collection:
    collection = Collection(folder)
    if not collection.parts(Table.RECORDS) and not collection.parts(Table.CANDIDATES):
        raise UserError(f"{folder} is no workspace, dataset or collection of dreamloom's; name one.")
    return collection


def _in_manifest(workspace: Path, folder: Path, picture: str) -> Row | None:
    """The manifest's row of an image by its file below `folder`, or by its key; None where it has none."""
    if not manifest_path(workspace).exists():
        return None
    rows = read_manifest(manifest_path(workspace))
    files = pc.fill_null(rows["file"], "")
    inside = "" if folder == workspace else f"{folder.relative_to(workspace).as_posix()}/"
    named = pc.or_(pc.equal(files, picture), pc.ends_with(files, f"/{picture}"))
    found = rows.filter(pc.and_(pc.starts_with(files, inside), named))
    if not len(found) and len(picture) >= _LEAST:
        found = rows.filter(pc.starts_with(rows["key"], picture))
    _only_one(picture, [row["file"] or row["key"] for row in found.slice(0, 4).to_pylist()])
    return dict(found.to_pylist()[0]) if len(found) else None


def _placed_row(workspace: Path, key: str) -> Row | None:
    """The manifest's row of a key, where the workspace has a manifest that knows it."""
    if not manifest_path(workspace).exists():
        return None
    rows = read_manifest(manifest_path(workspace))
    found = rows.filter(pc.equal(rows["key"], key)).to_pylist()
    return dict(found[0]) if found else None


def _find(collection: Collection, picture: str) -> str | None:
    """The key of an image by the name of its file, here or where it came from, or by its key."""
    found: dict[str, str] = {}
    for part in collection.parts(Table.RECORDS):
        for row in collection.read(Table.RECORDS, part, ["key", "image", "path"]).to_pylist():
            if picture in (Path(row["image"] or "").name, Path(row["path"] or "").name, row["path"]):
                found[row["key"]] = row["path"] or row["image"]
    if not found and len(picture) >= _LEAST:
        for table in (Table.RECORDS, Table.CANDIDATES):
            keys = collection.read(table, columns=["key"])["key"]
            found |= {key: key for key in keys.filter(pc.starts_with(keys, picture)).slice(0, 4).to_pylist()}
    _only_one(picture, list(found.values()))
    return next(iter(found), None)


def _only_one(picture: str, found: Sequence[str]) -> None:
    if len(found) > 1:
        raise UserError(
            f"Several images are called {picture} ({', '.join(found[:3])}, …); give more of the path, or the key."
        )


def _unknown(picture: str, folder: Path) -> UserError:
    return UserError(f"No image of {folder} is called {picture}; give a file's name, or the beginning of a key.")


def _history(collection: Collection, key: str, placed: Row | None) -> Lines:
    part, facts = _facts(collection, key)
    candidate, record = facts.get(Table.CANDIDATES, {}), facts.get(Table.RECORDS, {})
    lines = [("key", key), ("source", collection.name + (f" ({placed['role']})" if placed else ""))]
    lines += _origin({**candidate, **{name: value for name, value in record.items() if value is not None}})
    if candidate:
        lines += _passed("filter", collection.config(Table.CANDIDATES, part), candidate)
    lines += _record(collection, part, record, "scrape" if candidate else "ingest")
    lines += _scores(collection, part, facts.get(Table.SCORES))
    lines += _choice(collection, part, facts, record)
    lines += _caption(facts.get(Table.CAPTIONS))
    return lines + (_placed(placed) if placed else [])


def _facts(collection: Collection, key: str) -> tuple[str, dict[Table, Row]]:
    """The part that holds a key, and the key's row in each table."""
    for known in (Table.RECORDS, Table.CANDIDATES):
        for part in collection.parts(known):
            if pc.any(pc.equal(collection.read(known, part, ["key"])["key"], key)).as_py():
                rows = {table: _row(collection, table, part, key) for table in Table}
                return part, {table: row for table, row in rows.items() if row}
    raise UserError(f"{collection.root} does not know {key}; run balance again, which makes a new manifest.")


def _row(collection: Collection, table: Table, part: str, key: str) -> Row | None:
    if part not in collection.parts(table):
        return None
    columns = [name for name in SCHEMAS[table].names if name != "embedding"]
    rows = collection.read(table, part, columns)
    found = rows.filter(pc.equal(rows["key"], key)).to_pylist()
    return dict(found[0]) if found else None


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
    return [(what, value) for what, value in lines if value]


def _passed(stage: str, config: Mapping[str, Any], seen: Row) -> Lines:
    return [(f"passed {stage}", rule) for rule in rules(config, seen)]


def _record(collection: Collection, part: str, record: Row, stage: str) -> Lines:
    if not record:
        return [("status", f"not there yet; {stage} has not come to it")]
    if record["status"] != Status.OK:
        return [("dropped", _with(f"{stage}: {record['status']}", record["detail"]))]
    size = f"{record['width']} × {record['height']}"
    lines = [("status", record["status"]), ("picture", f"{collection.root / record['image']} ({size})")]
    return lines + _passed(stage, collection.config(Table.RECORDS, part), record)


def _scores(collection: Collection, part: str, scores: Row | None) -> Lines:
    if scores is None:
        return []
    made = collection.config(Table.SCORES, part)
    head = Path(made["aesthetic_head"]).name if made.get("aesthetic_head") else ""
    model = _plain(clip_name(made["model"], made.get("pretrained", "")))
    lines = [("aesthetic", scores["aesthetic"], head), ("similarity", scores["similarity"], model)]
    return [(what, _with(f"{value:.3f}", by)) for what, value, by in lines if value is not None]


def _choice(collection: Collection, part: str, facts: Mapping[Table, Row], record: Row) -> Lines:
    choice = facts.get(Table.CHOICES)
    if choice is None:
        unreadable = collection.parts(Table.CHOICES) and record.get("status") == Status.OK
        return [("dropped", "score: the image can't be decoded any more")] if unreadable else []
    if choice["choice"] != Choice.KEPT:
        return [("dropped", _with(f"choose: {choice['choice']}", choice["detail"]))]
    config = collection.config(Table.CHOICES, part)
    return [("choice", choice["choice"]), *_passed("choose", config, {**record, **facts.get(Table.SCORES, {})})]


def _caption(caption: Row | None) -> Lines:
    if caption is None:
        return []
    lines = [("caption", caption["caption"]), ("caption by", _with(caption["kind"], _plain(caption["model"])))]
    if caption["unedited"] not in (None, caption["caption"]):
        lines.append(("before the edits", caption["unedited"]))
    if caption["similarity"] is not None:
        fits = _with(f"{caption['similarity']:.3f}", _plain(caption["clip"]))
        lines.append(("caption fits", f"{fits}: doubtful" if caption["doubtful"] else fits))
    if len(found := caption["candidates"] or []) > 1:
        lines += [("candidate", f"{one['similarity']:.3f} {_with(one['caption'], one['kind'])}") for one in found]
    return lines


def _placed(row: Row) -> Lines:
    """Where the manifest has it."""
    if row["split"] == DROPPED:
        return [("in the dataset", f"no: {row['stage']} dropped it as {_with(row['reason'], row['detail'])}")]
    lines = [("in the dataset" if row["multiply"] is not None else "held out", row["file"])]
    if row["multiply"] is not None:
        lines.append(("multiply", f"{row['multiply']:g} times an epoch"))
    return lines


def _plain(model: str | None) -> str | None:
    """A model as people call it: of a folder, its path without the detours by which a project named it."""
    return model and os.path.normpath(model)


def _with(text: str, more: str | None) -> str:
    return f"{text} ({more})" if more else text
