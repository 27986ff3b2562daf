"""Captions in tables that lie inside a training folder: an imagefolder's metadata, and the JSON of kohya's tools.

    metadata.jsonl, metadata.csv, metadata.parquet     rows as in `dreamloom.train.data.table`
    meta_cap.json, meta_clean.json, …                  see `dreamloom.scrape.datasets.kohya`

They name images of their folder and of those below. The nearest table that names an image counts. An image's own
sidecar wins over all of them.
"""

import os
import posixpath
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.folder_names import FolderNames, path_key
from dreamloom.base.files.image_types import DECODED_EXTENSIONS
from dreamloom.base.tables.tables import TABLE_SUFFIXES
from dreamloom.caption.formats.kohya import METADATA, match_metadata
from dreamloom.caption.parts import CaptionParts
from dreamloom.caption.sidecar import Entries
from dreamloom.train.data.notes import Notes
from dreamloom.train.data.table import ListedImage, read_listed_images

_TABLES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES)
_MAY_HOLD_CAPTIONS = (*TABLE_SUFFIXES, ".tsv", ".json")
_JSON_OF_CAPTIONS = re.compile(r"(.*[_-])?(captions?|annotations?|labels?|meta(data)?|dataset|prompts?|train)([_-].*)?")
"""Names of JSON that may hold captions of several images; of any other name it may be anything."""


class ListedImages:
    """What the tables inside a training folder say of its images; they are added from the root downwards.

    Args:
        root: the training folder.
        notes: is told which tables are read, and what can't be.
    """

    def __init__(self, root: Path, notes: Notes) -> None:
        """Starts without tables."""
        self.root = root
        self.notes = notes
        self._listed: dict[str, tuple[str, ListedImage]] = {}  # image → the table that names it, and what it says
        self._used: set[str] = set()

    def add_tables(self, folder: Path, names: FolderNames) -> None:
        """Reads the tables among a folder's files; where one names an image that another did, it counts.

        Raises:
            UserError: a row of an imagefolder's metadata holds an invalid setting.
        """
        inside = folder.relative_to(self.root).as_posix()
        tables = sorted(name for name in names if name.lower() in _TABLES)
        json = next((name for name in METADATA if name in names), None)  # of the steps of kohya's tools, the last
        for name in [*([json] if json else []), *tables]:
            read = self._read_kohya if name == json else self._read_metadata
            table = posixpath.normpath(f"{inside}/{name}")
            found: dict[str, ListedImage] = {}
            for image in read(folder / name):
                key = path_key(posixpath.join(inside, image.file))
                found[key] = found[key].merge(image) if key in found else image
            self._listed |= {key: (table, image) for key, image in found.items()}
            if captioned := sum(bool(image.entries.prompts or image.entries.tags) for image in found.values()):
                self.notes("captions read from", f"{table} (of {captioned:,} images)")
        self._note_unread(inside, names, {json, *tables})

    def find(self, name: str) -> ListedImage | None:
        """Returns what is listed of an image, by its path inside the training folder."""
        if not self._listed:
            return None
        key = path_key(name)
        self._used.add(key)
        listed = self._listed.get(key)
        return None if listed is None else listed[1]

    def note_missing(self) -> None:
        """Notes the rows whose image `find` was never asked for."""
        for key, (table, _) in self._listed.items():
            if key not in self._used:
                self.notes("listed images that are not there", f"{key} in {table}")

    def _note_unread(self, inside: str, names: FolderNames, read: Collection[str | None]) -> None:
        if names.other_suffixes.isdisjoint(_MAY_HOLD_CAPTIONS):
            return
        for name in sorted(set(names).difference(read)):
            stem, suffix = os.path.splitext(name)
            is_sidecar = stem in names.image_stems or stem in names
            is_json = suffix.lower() == ".json"
            if suffix.lower() in _MAY_HOLD_CAPTIONS and not (
                is_json and (is_sidecar or not _JSON_OF_CAPTIONS.fullmatch(stem.lower()))
            ):
                kind = "tables that may hold captions, and are not read (call one metadata.jsonl, .csv or .parquet)"
                self.notes(kind, posixpath.normpath(f"{inside}/{name}"))

    def _read_metadata(self, path: Path) -> Iterator[ListedImage]:
        for row, image in read_listed_images(path):
            if image is not None and image.file:
                yield image
            else:
                self.notes("rows that can't be read", f"{path}, line {row.number} ({row.fault or 'no file name'})")

    def _read_kohya(self, path: Path) -> Iterator[ListedImage]:
        folder = path.parent
        files = (Path(parent, name) for parent, _, names in os.walk(folder, followlinks=True) for name in names)
        names = [file.relative_to(folder).as_posix() for file in files if file.suffix.lower() in DECODED_EXTENSIONS]
        try:
            captions = match_metadata(path, folder, names).captions
        except UserError as error:
            self.notes("tables that can't be read", str(error))
            return
        for name, text in captions.items():
            yield ListedImage(name, Entries((CaptionParts(text),)), "")
