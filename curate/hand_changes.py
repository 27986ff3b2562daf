"""Finds what a person changed in dataset/ and heldout/ since balance made them.

The manifest says what balance put where. A file that is a link to its image and older than the manifest is as it was;
any other is compared by its hash, so that a copied or touched workspace counts as unchanged.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc

from dreamloom.base.file_index import WholeFile, content_hashes
from dreamloom.base.folder_names import FolderNames
from dreamloom.base.image_types import is_image_name
from dreamloom.base.listing import is_left_out
from dreamloom.caption.filename import CONTROLS, read_name
from dreamloom.caption.sidecar import parse_sidecars, resolve_caption
from dreamloom.curate.hand_settings import find_settings
from dreamloom.curate.manifest import manifest_path, read_manifest, read_sources
from dreamloom.scrape.collection.decisions import FOLDER, What, read_decisions
from dreamloom.scrape.datasets.sidecar_files import SIDECARS

Row = dict[str, Any]
How = Literal["deleted", "renamed", "captioned", "set otherwise", "replaced", "moved", "added"]

_TOPS = ("dataset", "heldout")


@dataclass(frozen=True)
class HandChange:
    """What a person did to one image, or to a file that is none of ours."""

    how: How
    file: str
    """The file as it is now, relative to the workspace; of a deleted one, as it was."""
    key: str = ""
    """Of the image; empty: it is of none."""
    root: Path = Path()
    """The image's collection."""
    says: tuple[tuple[What, str | None], ...] = ()
    """The decisions that say the same; none: decisions can't."""
    in_place: bool = False
    """Whether the collection's own image was changed with it, by a program that writes into the file."""


def find_hand_changes(workspace: Path) -> list[HandChange]:
    """Returns what was changed by hand and is no decision yet; nothing where there is no manifest, or no folder left.

    Raises:
        UserError: the manifest or decisions can't be read.
    """
    if not manifest_path(workspace).exists():
        return []
    tops = [top for top in _TOPS if (workspace / top).is_dir()]
    roots = {each["name"]: (workspace / each["root"]).resolve() for each in read_sources(manifest_path(workspace))}
    table = read_manifest(manifest_path(workspace))
    rows = {row["file"]: row for row in table.filter(pc.is_valid(table["file"])).to_pylist()}
    rows = {file: row for file, row in rows.items() if file.partition("/")[0] in tops and row["source"] in roots}
    seen = _Seen(workspace, roots, rows, manifest_path(workspace).stat().st_mtime_ns)
    folders = dict(_list_files(workspace, tops))
    changes = [*_images(seen, folders), *_controls(seen, folders)]
    said = {root: _said(root) for root in roots.values()}
    return [change for change in changes if not _is_decided(change, said)]


def _said(root: Path) -> set[tuple[str, What, str | None]]:
    words = read_decisions(root).words.values()
    return {(word.key, word.what, word.value) for of_subject in words for word in of_subject}


def _is_decided(change: HandChange, said: Mapping[Path, set[tuple[str, What, str | None]]]) -> bool:
    return bool(change.says) and all((change.key, *word) in said[change.root] for word in change.says)


def _list_files(workspace: Path, tops: Sequence[str]) -> Iterator[tuple[str, FolderNames]]:
    """Yields each folder, relative to the workspace, with the names of its files."""
    for top in tops:
        for folder, below, names in os.walk(workspace / top):
            below[:] = sorted(name for name in below if not is_left_out(name))
            kept = (name for name in names if not is_left_out(name))
            yield Path(folder).relative_to(workspace).as_posix(), FolderNames(kept)


@dataclass(frozen=True)
class _Seen:
    """What is there, and what the manifest says of it."""

    workspace: Path
    roots: Mapping[str, Path]
    rows: Mapping[str, Row]
    """File → row of the manifest."""
    made_ns: int
    """When the manifest was written."""

    def is_older(self, file: str) -> bool:
        """Whether a file was last written before the manifest."""
        try:
            return os.stat(self.workspace / file).st_mtime_ns <= self.made_ns
        except OSError:
            return False

    def image(self, row: Row) -> Path:
        """Returns the collection's file that the image of a row is, or was cropped from."""
        return Path(self.roots[row["source"]], row["replaced"] or row["image"])

    def is_link(self, file: str, row: Row) -> bool:
        """Whether a file and the collection's are one."""
        try:
            return os.path.samefile(self.workspace / file, self.image(row))
        except OSError:
            return False

    def expected(self, rows: Sequence[Row]) -> list[str | None]:
        """Returns the hash that the file of each row had when balance made it."""
        known = [row["file_sha256"] or _named_hash(row["replaced"]) or row["image_sha256"] for row in rows]
        unknown = [place for place, sha256 in enumerate(known) if sha256 is None]
        hashes = content_hashes([WholeFile(self.image(rows[place])) for place in unknown])
        for place, sha256 in zip(unknown, hashes, strict=True):
            known[place] = sha256
        return known


def _named_hash(replaced: str | None) -> str | None:
    return Path(replaced).stem if replaced else None


def _images(seen: _Seen, folders: Mapping[str, FolderNames]) -> Iterator[HandChange]:
    there = {f"{folder}/{name}" for folder, names in folders.items() for name in names if is_image_name(name)}
    missing = [file for file in seen.rows if file not in there]
    former = {file: file for file in seen.rows if file in there}
    replaced = _find_replaced(seen, list(former))
    former |= _find_renamed(seen, sorted(there - seen.rows.keys()), missing)
    for file in sorted(set(missing) - set(former.values())):
        row = seen.rows[file]
        yield HandChange("deleted", file, row["key"], seen.roots[row["source"]], ((What.DROP, None),))
    for now, before in sorted(former.items()):
        row = seen.rows[before]
        change = HandChange("captioned", now, row["key"], seen.roots[row["source"]])
        if now in replaced:
            image = f"{FOLDER}/images/{replaced[now]}{Path(now).suffix.lower()}"
            in_place = seen.is_link(now, row)
            yield replace(change, how="replaced", says=((What.IMAGE, image),), in_place=in_place)
        if os.path.dirname(now) != os.path.dirname(before):
            yield replace(change, how="moved")
        elif (caption := _caption(seen, now, before, folders)) is not None:
            yield replace(change, how="captioned" if now == before else "renamed", says=((What.CAPTION, caption),))
        if now.startswith("dataset/"):
            yield from _settings(seen, change, now, before, folders)
    for file in sorted(there - former.keys()):
        yield HandChange("added", file)


def _find_renamed(seen: _Seen, extra: Sequence[str], missing: Sequence[str]) -> dict[str, str]:
    """Returns new name → former name, by the bytes; of images with equal bytes, each once."""
    if not extra or not missing:
        return {}
    by_hash: dict[str | None, list[str]] = {}
    for file, sha256 in zip(missing, seen.expected([seen.rows[file] for file in missing]), strict=True):
        by_hash.setdefault(sha256, []).append(file)
    hashes = content_hashes([WholeFile(seen.workspace / file) for file in extra])
    return {
        file: by_hash[sha256].pop(0)
        for file, sha256 in zip(extra, hashes, strict=True)
        if sha256 and by_hash.get(sha256)
    }


def _find_replaced(seen: _Seen, files: Sequence[str]) -> dict[str, str]:
    """Returns file → hash, of those that have not the bytes that balance gave them."""
    doubtful = [file for file in files if not (seen.is_older(file) and seen.is_link(file, seen.rows[file]))]
    expected = seen.expected([seen.rows[file] for file in doubtful])
    hashes = content_hashes([WholeFile(seen.workspace / file) for file in doubtful])
    found = zip(doubtful, expected, hashes, strict=True)
    return {file: now for file, before, now in found if now is not None and before is not None and now != before}


def _caption(seen: _Seen, now: str, before: str, folders: Mapping[str, FolderNames]) -> str | None:
    """Returns the caption that a file has now; None: it is as it was."""
    folder, name = os.path.split(now)
    written: str = seen.rows[before]["caption"]
    sidecars = _sidecars(name, folders[folder])
    needs_sidecar = read_name(name) != written
    if now == before and bool(sidecars) >= needs_sidecar and all(seen.is_older(f"{folder}/{s}") for s in sidecars):
        return None
    content = parse_sidecars(str(seen.workspace / folder), name, siblings=folders[folder])
    caption = read_name(name) if content.is_blank else resolve_caption(name, content)
    return None if caption == written else caption


def _settings(
    seen: _Seen, change: HandChange, now: str, before: str, folders: Mapping[str, FolderNames]
) -> Iterator[HandChange]:
    """Yields what a YAML beside an image says of how it is shown, where that is not as it was."""
    folder, name = os.path.split(now)
    yamls = [s for s in _sidecars(name, folders[folder]) if s.lower().endswith((".yaml", ".yml"))]
    row = seen.rows[before]
    was_written = not {row["rating"], row["loss_scale"]} <= {None, 1.0} or row["flip"] == "no"
    if all(seen.is_older(f"{folder}/{yaml}") for yaml in yamls) and bool(yamls) >= was_written:
        return
    content = parse_sidecars(str(seen.workspace / folder), name, siblings=folders[folder])
    says = find_settings(content.own.settings if content.own else {}, row)
    if says is None:
        yield replace(change, how="set otherwise", file=f"{folder}/{yamls[0]}")
    elif says:
        yield replace(change, how="set otherwise", says=says)


def _sidecars(name: str, names: FolderNames) -> list[str]:
    stem = os.path.splitext(name)[0]
    return [f"{stem}{suffix}" for suffix in SIDECARS if f"{stem}{suffix}" in names]


def _controls(seen: _Seen, folders: Mapping[str, FolderNames]) -> Iterator[HandChange]:
    """Yields control files that balance did not write so, and texts that belong to no image."""
    stems = {os.path.splitext(file)[0] for file in seen.rows}
    sources = {os.path.dirname(file): row for file, row in seen.rows.items() if file.startswith("dataset/")}
    for folder, names in folders.items():
        own = {os.path.splitext(name)[0] for name in names if is_image_name(name)}
        for name in sorted(name for name in names if not is_image_name(name)):
            file, stem = f"{folder}/{name}", os.path.splitext(name)[0]
            if file == "heldout/concepts.json" or (name == "multiply.txt" and _is_multiply(seen, file, sources)):
                continue
            if name in CONTROLS:
                yield HandChange("set otherwise", file)
            elif stem not in own and f"{folder}/{stem}" not in stems:
                yield HandChange("added", file)
        if folder in sources and "multiply.txt" not in names:
            yield HandChange("set otherwise", f"{folder}/multiply.txt")


def _is_multiply(seen: _Seen, file: str, sources: Mapping[str, Row]) -> bool:
    """Whether a multiply.txt says what balance wrote."""
    row = sources.get(os.path.dirname(file))
    if row is None or seen.is_older(file):
        return row is not None
    try:
        written = float((seen.workspace / file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return math.isclose(written, row["multiply"] / (row["rating"] or 1), rel_tol=1e-9)
