"""Places images under their captions, as links or crops, with what lies beside them.

Where few images of a large folder are placed otherwise than before, only these are: the rest stays as it is. What there
is follows from the rows, so a row of the manifest that equals the new one has the same files.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import fsync_all, link
from dreamloom.base.progress import Progress, silent
from dreamloom.caption.sidecar_writer import write_sidecar
from dreamloom.curate.balance import format_multiply
from dreamloom.curate.crop import write_crop
from dreamloom.curate.manifest import DROPPED, TRAIN, manifest_path, read_manifest
from dreamloom.curate.naming import name_images
from dreamloom.curate.source import Role, Source
from dreamloom.curate.split import Split
from dreamloom.scrape.collection.decisions import MIDDLE
from dreamloom.scrape.collection.records import file_sha256

LAYOUT = "1"
"""Raised when the same rows are placed in other files, or with others beside them."""
SMALL = 1000
"""Images up to which a folder is made anew: that takes no time."""
_HANGS_ON = ("source", "image", "replaced", "crop", "caption", "image_sha256", "loss_scale", "flip", "focus", "rating")
"""Columns that say, with the name of a file, what it is and what lies beside it."""
_BESIDE = (".txt", ".yaml")
"""What balance writes beside an image."""


@dataclass(frozen=True)
class Placement:
    """Where the image of each row lies, and what lies beside it."""

    files: pa.Array
    """Relative to the workspace, as large_string; null: it is dropped."""
    is_trained: NDArray[np.bool_]
    """Whether it lies in dataset."""
    told_beside: NDArray[np.bool_]
    """Whether the name can't hold its caption, so that a .txt does."""
    settings: Mapping[int, str]
    """Row → the YAML beside its image."""

    def select(self, top: str) -> list[int]:
        """Returns the rows whose image lies in dataset or in heldout."""
        is_inside = self.is_trained if top == "dataset" else ~self.is_trained & self.files.is_valid().to_numpy(False)
        return np.flatnonzero(is_inside).tolist()

    def file(self, row: int) -> str:
        """Returns where the image of a row lies that is not dropped."""
        return str(self.files[row].as_py())


def name_files(rows: pa.Table, placed: Split) -> Placement:
    """Names the images of a history by their captions."""
    import pyarrow.compute as pc  # takes long to load, and is needed only here

    split = np.array(placed.split)
    which = np.flatnonzero(split != DROPPED)
    some = rows.select(["source", "image", "caption", "replaced"]).take(pa.array(which)).combine_chunks()
    columns = {name: some[name].cast(pa.large_string()).combine_chunks() for name in some.column_names}
    names, folder_of = _folders(rows, placed, split)
    endings = pc.extract_regex(pc.coalesce(columns["replaced"], columns["image"]), r"(?P<ending>\.[^./]*)$")
    endings = pc.fill_null(pc.struct_field(endings, "ending"), "")
    named = name_images(folder_of[which], columns["caption"], endings)
    inside = pa.array(names, pa.large_string()).take(pa.array(folder_of[which]))
    is_there, told_beside = split != DROPPED, np.zeros(len(split), dtype=bool)
    files = pc.binary_join_element_wise(inside, named.names, pa.scalar("/", pa.large_string()))
    files = pc.replace_with_mask(pa.nulls(len(split), pa.large_string()), pa.array(is_there), files)
    told_beside[which] = named.needs_sidecar
    return Placement(files, split == TRAIN, told_beside, _settings(rows, placed))


def _folders(rows: pa.Table, placed: Split, split: NDArray[Any]) -> tuple[list[str], NDArray[np.int64]]:
    """Returns folders of images, and for each row the number of its own; of dropped rows any number."""
    coded = rows["source"].combine_chunks().dictionary_encode()
    sources = coded.dictionary.to_pylist()
    names = [f"{top}/{name}" for top in ("dataset", *(f"heldout/{role}" for role in Role)) for name in sources]
    folder_of = coded.indices.to_numpy().astype(np.int64)
    for row, kind in placed.kinds.items():
        folder_of[row] += len(sources) * (1 + list(Role).index(kind))
    return names, folder_of


def write_files(
    which: Sequence[int],
    rows: pa.Table,
    placement: Placement,
    ordered: Sequence[Source],
    folder: Path,
    progress: Progress = silent,
) -> dict[int, str]:
    """Writes images and what lies beside them, where nothing is yet.

    Args:
        which: rows, of which all images lie in dataset, or all in heldout.
        rows: the history.
        placement: where the images lie.
        ordered: the sources.
        folder: the folder that is dataset or heldout, or will be.
        progress: called with the number of images written.

    Returns:
        Row → hash of each crop.
    """
    roots = {source.name: f"{source.collection.root}/" for source in ordered}
    made: set[str] = set()
    written: dict[int, str] = {}
    taken = pa.array(which, pa.int64())
    columns = [placement.files.take(taken).to_pylist(), *(rows[name].take(taken).to_pylist() for name in _WRITTEN)]
    for done, (row, file, name, image, caption, replaced, crop) in enumerate(zip(which, *columns, strict=True), 1):
        target = f"{folder}/{file.partition('/')[2]}"
        if (inside := os.path.dirname(target)) not in made:
            os.makedirs(inside, exist_ok=True)
            made.add(inside)
        original = roots[name] + (replaced or image)
        if crop:
            write_crop(Path(original), Path(target), crop, original)
            written[row] = file_sha256(Path(target))
        else:
            _link(original, target)
        if placement.told_beside[row]:
            write_sidecar(Path(target), caption)
        if row in placement.settings:
            Path(target).with_suffix(".yaml").write_text(placement.settings[row], encoding="utf-8")
        if done % 1000 == 0:
            progress(done, len(which))
    return written


_WRITTEN = ("source", "image", "caption", "replaced", "crop")


@dataclass(frozen=True)
class Changes:
    """What changes in a dataset/ that balance made before."""

    to_write: list[int]
    """Rows whose image is new, or placed otherwise."""
    to_remove: list[str]
    """Images that are there, relative to the workspace."""

    def remove(self, workspace: Path) -> None:
        """Removes the images and what balance wrote beside them."""
        for name in _with_beside(self.to_remove):
            (workspace / name).unlink(missing_ok=True)

    def files(self, placement: Placement) -> list[str]:
        """Returns all that may have been removed or written, relative to the workspace."""
        return _with_beside([*self.to_remove, *map(placement.file, self.to_write)])

    def sync(self, workspace: Path, placement: Placement) -> None:
        """Waits until the disk has what changed."""
        changed = [workspace / file for file in self.files(placement)]
        there = [file for file in changed if file.exists() and file.stat().st_nlink == 1]
        fsync_all([*there, *{file.parent for file in changed}])


def _with_beside(files: Sequence[str]) -> list[str]:
    return [name for file in files for name in (file, *(os.path.splitext(file)[0] + suffix for suffix in _BESIDE))]


def find_changes(workspace: Path, rows: pa.Table, placement: Placement) -> Changes | None:
    """Returns what is to be changed of dataset/, which is as its manifest says.

    Returns:
        None: it is made anew, as most of it changes, as it is small, or as a source comes in or goes.
    """
    import pyarrow.compute as pc  # takes long to load, and is needed only here

    which = np.flatnonzero(placement.is_trained)
    if len(which) <= SMALL:
        return None
    indices = pa.array(which)
    new, names = rows.select(_HANGS_ON).take(indices), placement.files.take(indices).cast(pa.string())
    old = read_manifest(manifest_path(workspace), ["split", "file", *_HANGS_ON])
    old = old.filter(pc.equal(old["split"], TRAIN))
    if set(new["source"].unique().to_pylist()) != set(old["source"].unique().to_pylist()):
        return None
    at = pc.index_in(names, old["file"].combine_chunks())
    before = old.take(at)
    is_plain = pa.array(~np.isin(which, list(placement.settings)))
    stays = pc.and_(pc.and_(at.is_valid(), is_plain), pc.and_(new["image_sha256"].is_valid(), new["crop"].is_null()))
    for name in _HANGS_ON:
        stays = pc.and_(stays, _equal(new[name], before[name]))
    stays = stays.combine_chunks()
    to_write = indices.filter(pc.invert(stays)).to_pylist()
    if len(to_write) > len(which) // 2:
        return None
    gone = pc.invert(pc.is_in(old["file"], names.filter(stays)))
    return Changes(to_write, old["file"].filter(gone).to_pylist())


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether values are equal, or both null."""
    import pyarrow.compute as pc

    return pc.or_(pc.fill_null(pc.equal(one, other), False), pc.and_(one.is_null(), other.is_null()))


def _settings(rows: pa.Table, placed: Split) -> dict[int, str]:
    """Returns row → the YAML beside its image, of those that are not shown as the others of their folder are.

    Of those that are held out, it says what part of them is looked at.
    """
    settings: dict[int, str] = {}
    names = ("rating", "loss_scale", "flip", "focus")
    decided = np.flatnonzero(np.any([rows[name].is_valid().to_numpy() for name in names], axis=0))
    columns = (rows[name].take(pa.array(decided)).to_pylist() for name in ("source", *names[1:]))
    for row, name, loss_scale, flip, focus in zip(decided.tolist(), *columns, strict=True):
        is_trained = placed.split[row] == TRAIN
        lines = [f"focus: {focus}\n"] if focus not in (None, MIDDLE) else []
        if is_trained and placed.ratings[row] != 1:
            lines.append(f"multiply: {format_multiply(placed.multiply(row, name))}\n")
        if is_trained and loss_scale not in (None, 1):
            lines.append(f"loss_scale: {loss_scale:g}\n")
        if is_trained and flip == "no":
            lines.append("flip_p: 0\n")
        if lines:
            settings[row] = "".join(lines)
    return settings


def _link(image: str, target: str) -> None:
    try:
        link(image, target)
    except FileNotFoundError:
        raise UserError(
            f"{image} is gone; delete the part of records that names it, and its stage makes it again."
        ) from None
