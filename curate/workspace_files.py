"""What lies in dataset/ and heldout/, beside what the manifest says that balance put there."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dreamloom.base.files.file_index import WholeFile, content_hashes
from dreamloom.base.files.folder_names import FolderNames
from dreamloom.base.files.image_types import is_image_name
from dreamloom.base.files.listing import walk_folders
from dreamloom.caption.filename import CONTROLS, read_name
from dreamloom.caption.sidecar import SidecarContent, parse_sidecars
from dreamloom.curate.manifest import manifest_path, read_collections, read_manifest
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.decisions import MIDDLE
from dreamloom.scrape.datasets.sidecar_files import SIDECARS, find_sidecars

Row = dict[str, Any]

TOPS = ("dataset", "heldout")
"""Folders of a workspace that balance writes."""
_COLUMNS = ["key", "source", "file", "image", "replaced", "file_sha256", "image_sha256", "caption"]
_COLUMNS += ["multiply", "rating", "loss_scale", "flip", "focus"]


@dataclass(frozen=True)
class _Folder:
    """The files of a folder, by name."""

    files: Mapping[str, "os.DirEntry[str]"]

    @cached_property
    def names(self) -> FolderNames:
        """Returns all names but those of control files, which are no sidecars."""
        return FolderNames(self.files.keys() - CONTROLS)


@dataclass(frozen=True)
class WorkspaceFiles:
    """What is there, and what the manifest says of it."""

    workspace: Path
    roots: Mapping[str, Path]
    rows: Mapping[str, Row]
    """File → row of the manifest."""
    made_ns: int
    """When the manifest was written."""
    folders: Mapping[str, _Folder]

    @cached_property
    def images(self) -> set[str]:
        """Returns the images that are there."""
        return {
            f"{inside}/{name}"
            for inside, folder in self.folders.items()
            for name in folder.files
            if is_image_name(name)
        }

    @cached_property
    def sidecars(self) -> dict[str, list[str]]:
        """Returns image → names of its sidecars, of those that have some."""
        found: dict[str, list[str]] = {}
        for inside, folder in self.folders.items():
            if folder.names.other_suffixes.isdisjoint(SIDECARS):  # of a million images, most folders have none
                continue
            for name in filter(is_image_name, folder.files):
                if sidecars := find_sidecars(name, folder.names):
                    found[f"{inside}/{name}"] = [sidecar for _, sidecar in sidecars]
        return found

    def content(self, image: str) -> SidecarContent:
        """Reads the sidecars of an image."""
        folder, name = os.path.split(image)
        return parse_sidecars(str(self.workspace / folder), name, siblings=self._folder(image).names)

    def is_older(self, file: str) -> bool:
        """Whether a file was last written before the manifest."""
        try:
            return self._entry(file).stat().st_mtime_ns <= self.made_ns
        except OSError:
            return False

    def image(self, row: Row) -> str:
        """Returns the collection's file that the image of a row is, or was cropped from."""
        return f"{self.roots[row['source']]}/{row['replaced'] or row['image']}"

    def is_link(self, file: str, row: Row) -> bool:
        """Whether a file and the collection's are one."""
        try:
            return os.path.samestat(self._entry(file).stat(), os.stat(self.image(row)))
        except OSError:
            return False

    def is_as_made(self, file: str) -> bool:
        """Whether an image is as balance made it and has nothing beside it, as most are; what is not is looked at."""
        row = self.rows[file]
        is_bare = file not in self.sidecars and not has_settings(row) and read_name(file) == row["caption"]
        return is_bare and self.is_older(file) and self.is_link(file, row)

    def expected(self, rows: Sequence[Row]) -> list[str | None]:
        """Returns the hash that the file of each row had when balance made it."""
        known = [row["file_sha256"] or _named_hash(row["replaced"]) or row["image_sha256"] for row in rows]
        unknown = [place for place, sha256 in enumerate(known) if sha256 is None]
        hashes = content_hashes([WholeFile(Path(self.image(rows[place]))) for place in unknown])
        for place, sha256 in zip(unknown, hashes, strict=True):
            known[place] = sha256
        return known

    def _folder(self, file: str) -> _Folder:
        return self.folders[file.rpartition("/")[0]]

    def _entry(self, file: str) -> "os.DirEntry[str]":
        return self._folder(file).files[file.rpartition("/")[2]]


def _named_hash(replaced: str | None) -> str | None:
    return Path(replaced).stem if replaced else None


def has_settings(row: Row) -> bool:
    """Whether balance wrote a YAML beside an image."""
    is_set = not {row["rating"], row["loss_scale"]} <= {None, 1.0} or row["flip"] == "no"
    is_held_out = row["multiply"] is None
    return (row["focus"] or MIDDLE) != MIDDLE or (is_set and not is_held_out)


def look_at(workspace: Path) -> WorkspaceFiles:
    """Reads the manifest of a workspace, and lists its folders as training does.

    Raises:
        UserError: the manifest, records or a folder can't be read.
    """
    import pyarrow.compute as pc

    path = manifest_path(workspace)
    tops = [top for top in TOPS if (workspace / top).is_dir()]
    roots = {name: collection.root for name, collection in read_collections(workspace).items()}
    table = read_manifest(path, _COLUMNS)
    rows = {row["file"]: row for row in table.filter(pc.is_valid(table["file"])).to_pylist()}
    rows = {file: row for file, row in rows.items() if file.partition("/")[0] in tops and row["source"] in roots}
    _name_images(rows, roots)
    folders = {
        folder.relative_to(workspace).as_posix(): _Folder({entry.name: entry for entry in listed.files})
        for folder, listed in walk_folders((workspace / top for top in tops), Counter())
    }
    return WorkspaceFiles(workspace, roots, rows, path.stat().st_mtime_ns, folders)


def _name_images(rows: Mapping[str, Row], roots: Mapping[str, Path]) -> None:
    """Fills in the images that the manifest of an older release does not name."""
    for source in {row["source"] for row in rows.values() if row["image"] is None}:
        records = Collection(roots[source]).read(Table.RECORDS, columns=["key", "image"]).to_pylist()
        images = {record["key"]: record["image"] for record in records}
        for row in rows.values():
            if row["source"] == source:
                row["image"] = images.get(row["key"]) or ""
