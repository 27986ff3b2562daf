"""Finds what a person changed in dataset/ and heldout/ since balance made them.

The manifest says what balance put where. A file that is a link to its image and older than the manifest is as it was;
any other is compared by its hash, so that a copied or touched workspace counts as unchanged.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dreamloom.base.files.file_index import WholeFile, content_hashes
from dreamloom.base.files.remembered import remembered
from dreamloom.base.files.tree_state import TreeLook, look_at_tree, state_after
from dreamloom.base.stage import recipe
from dreamloom.base.tables.streamed_set import find_streamed_set
from dreamloom.caption.filename import CONTROLS, read_name
from dreamloom.caption.sidecar import resolve_caption
from dreamloom.curate.hand_settings import find_settings
from dreamloom.curate.manifest import manifest_path, read_sources
from dreamloom.curate.workspace_files import TOPS, Row, WorkspaceFiles, has_settings, look_at
from dreamloom.scrape.collection.decisions import FOLDER, What, read_decisions

VERSION = 2
"""Raised when other changes are found in the same files."""
How = Literal["deleted", "renamed", "captioned", "set otherwise", "replaced", "moved", "added"]


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
        UserError: the manifest, decisions or a folder can't be read.
    """
    return look_for_hand_changes(workspace)[1]


def look_for_hand_changes(workspace: Path, anew: bool = False) -> tuple[TreeLook | None, list[HandChange]]:
    """Returns what was seen, where there is a manifest and all is as it says; and what `find_hand_changes` does.

    Args:
        workspace: where dataset/ and heldout/ are.
        anew: look now, also within `looking_once`, and keep the files that were seen.
    """
    if not manifest_path(workspace).exists():
        return None, []
    if find_streamed_set(workspace / "dataset"):  # nobody can change files that are not there
        return None, []
    found: list[HandChange] | None = None

    def look() -> bool:
        nonlocal found
        found = _find(workspace)
        return not found

    seen = look_at_tree(_looked_at(workspace), keep_files=anew)
    is_as_made = look() if seen.state is None else remembered(_place(workspace, seen.state), look)
    if is_as_made:
        return seen, []
    return None, _undecided(_find(workspace) if found is None else found)


def note_as_made(workspace: Path, before: TreeLook, changed: Iterable[str]) -> None:
    """Remembers that all is as balance made it, which changed a few files where all was as it had made it before.

    Args:
        workspace: where dataset/ and heldout/ are; the latter was made anew.
        before: what `look_for_hand_changes` saw.
        changed: paths in dataset/ that balance wrote or removed.
    """
    if (state := state_after(before, changed, replaced=workspace / "heldout")) is not None:
        remembered(_place(workspace, state), lambda: True)


def _place(workspace: Path, state: str) -> str:
    """Returns under what it is remembered whether there are changes."""
    written_ns = manifest_path(workspace).stat().st_mtime_ns
    return recipe("hand changes", VERSION, {"workspace": workspace.resolve()}, [state, str(written_ns)])


def _looked_at(workspace: Path) -> list[Path]:
    """Returns the folders on whose files it depends whether there are changes."""
    roots = [workspace / source["root"] for source in read_sources(manifest_path(workspace))]
    return [*(workspace / top for top in TOPS), *(root / FOLDER for root in roots)]


def _find(workspace: Path) -> list[HandChange]:
    seen = look_at(workspace)
    return [*_images(seen), *_controls(seen)]


def _undecided(changes: Sequence[HandChange]) -> list[HandChange]:
    said = {root: _said(root) for root in {change.root for change in changes if change.says}}
    return [change for change in changes if not _is_decided(change, said)]


def _said(root: Path) -> set[tuple[str, What, str | None]]:
    words = read_decisions(root).words.values()
    return {(word.key, word.what, word.value) for of_subject in words for word in of_subject}


def _is_decided(change: HandChange, said: Mapping[Path, set[tuple[str, What, str | None]]]) -> bool:
    return bool(change.says) and all((change.key, *word) in said[change.root] for word in change.says)


def _images(seen: WorkspaceFiles) -> Iterator[HandChange]:
    missing = [file for file in seen.rows if file not in seen.images]
    former = {file: file for file in seen.rows if file in seen.images and not seen.is_as_made(file)}
    replaced = _find_replaced(seen, list(former))
    former |= _find_renamed(seen, sorted(seen.images - seen.rows.keys()), missing)
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
        elif (caption := _caption(seen, now, before)) is not None:
            yield replace(change, how="captioned" if now == before else "renamed", says=((What.CAPTION, caption),))
        yield from _settings(seen, change, now, before)
    for file in sorted(seen.images - seen.rows.keys() - former.keys()):
        yield HandChange("added", file)


def _find_renamed(seen: WorkspaceFiles, extra: Sequence[str], missing: Sequence[str]) -> dict[str, str]:
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


def _find_replaced(seen: WorkspaceFiles, files: Sequence[str]) -> dict[str, str]:
    """Returns file → hash, of those that have not the bytes that balance gave them."""
    doubtful = [file for file in files if not (seen.is_older(file) and seen.is_link(file, seen.rows[file]))]
    expected = seen.expected([seen.rows[file] for file in doubtful])
    hashes = content_hashes([WholeFile(seen.workspace / file) for file in doubtful])
    found = zip(doubtful, expected, hashes, strict=True)
    return {file: now for file, before, now in found if now is not None and before is not None and now != before}


def _caption(seen: WorkspaceFiles, now: str, before: str) -> str | None:
    """Returns the caption that a file has now; None: it is as it was."""
    folder, name = os.path.split(now)
    written: str = seen.rows[before]["caption"]
    sidecars = seen.sidecars.get(now, ())
    is_old = now == before and all(seen.is_older(f"{folder}/{sidecar}") for sidecar in sidecars)
    if is_old and (sidecars or read_name(name) == written):
        return None
    content = seen.content(now)
    caption = read_name(name) if content.is_blank else resolve_caption(name, content)
    return None if caption == written else caption


def _settings(seen: WorkspaceFiles, change: HandChange, now: str, before: str) -> Iterator[HandChange]:
    """Yields what a YAML beside an image says of how it is shown, where that is not as it was."""
    folder, row = os.path.dirname(now), seen.rows[before]
    yamls = [f"{folder}/{name}" for name in seen.sidecars.get(now, ()) if name.lower().endswith((".yaml", ".yml"))]
    if all(map(seen.is_older, yamls)) and bool(yamls) >= has_settings(row):
        return
    content = seen.content(now)
    says = find_settings(content.own.settings if content.own else {}, row)
    if says is None:
        yield replace(change, how="set otherwise", file=yamls[0])
    elif says:
        yield replace(change, how="set otherwise", says=says)


def _controls(seen: WorkspaceFiles) -> Iterator[HandChange]:
    """Yields control files that balance did not write so, and texts that belong to no image."""
    sources = {file.rpartition("/")[0]: row for file, row in seen.rows.items() if file.startswith("dataset/")}
    sidecars = {f"{os.path.dirname(image)}/{name}" for image, names in seen.sidecars.items() for name in names}
    texts = []
    for inside, folder in seen.folders.items():
        for file in sorted({f"{inside}/{name}" for name in folder.files} - seen.images - sidecars):
            name = os.path.basename(file)
            if file == "heldout/concepts.json" or (name == "multiply.txt" and _is_multiply(seen, file, sources)):
                continue
            if name in CONTROLS:
                yield HandChange("set otherwise", file)
            else:
                texts.append(file)
        if inside in sources and "multiply.txt" not in folder.files:
            yield HandChange("set otherwise", f"{inside}/multiply.txt")
    stems = {os.path.splitext(file)[0] for file in seen.rows} if texts else set()
    yield from (HandChange("added", file) for file in texts if os.path.splitext(file)[0] not in stems)


def _is_multiply(seen: WorkspaceFiles, file: str, sources: Mapping[str, Row]) -> bool:
    """Whether a multiply.txt says what balance wrote."""
    row = sources.get(os.path.dirname(file))
    if row is None or seen.is_older(file):
        return row is not None
    try:
        written = float((seen.workspace / file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return math.isclose(written, row["multiply"] / (row["rating"] or 1), rel_tol=1e-9)
