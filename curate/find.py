"""Finds the images that somebody points at: by file, key or pattern, or by a condition on what the tables say."""

import fnmatch
import os
import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.caption.filename import read_name
from dreamloom.curate.manifest import MANIFEST, manifest_path, read_manifest, read_manifest_metadata
from dreamloom.scrape.collection import Collection, Table

_MIN_KEY = 4
"""Minimum characters of a key that name it."""
_GLOB = re.compile(r"[*?\[]")


class FoundImage(NamedTuple):
    """An image of a collection."""

    collection: Collection
    key: str
    file: str
    """Where people see it: in the dataset or among the held-out images, else the file or address it came from."""


def find_images(
    collections: Sequence[Collection], workspace: Path | None, names: Sequence[str], where: str | None = None
) -> list[FoundImage]:
    """Finds images, in the order of their collections.

    Args:
        collections: where they may be.
        workspace: has the manifest that knows their files in dataset/ and heldout/; None: there is none.
        names: see `ImageIndex.places`.
        where: SQL on the columns of `_VIEW`; with names, an image has to meet it, too.

    Raises:
        UserError: nothing is asked for, a name fits no image or, unless it is a pattern, several; or the SQL is wrong.
    """
    if not names and where is None:
        raise UserError("Name images (files, keys or patterns), or say which with --where, such as 'aesthetic < 4'.")
    met = [] if where is None else [i for c in collections for i in _find_where(c, workspace, where)]
    if not names:
        return met
    found, meeting = ImageIndex(collections, workspace).find(names), set(met)
    return [image for image in found if where is None or image in meeting]


class ImageIndex:
    """The names of all images of collections, read once.

    Args:
        collections: where the images are.
        workspace: see `find_images`.
    """

    def __init__(self, collections: Sequence[Collection], workspace: Path | None) -> None:
        """Reads the tables."""
        self._workspace = workspace
        self._images = [image for collection in collections for image in _images(collection, workspace)]
        self._keys = sorted((image.key, place) for place, image in enumerate(self._images))

    def find(self, names: Sequence[str]) -> list[FoundImage]:
        """Returns the images that names fit, in order; see `places`."""
        places = sorted({place for name in names for place in self.places(name)})
        return [self._images[place].found() for place in places]

    def has_key(self, text: str) -> bool:
        """Tells whether an image has this key, or one that begins with it."""
        return any(True for _ in self._places_of_key(text))

    def _places_of_key(self, text: str) -> Iterator[int]:
        """Yields the places of the images whose keys begin with a text."""
        for number in range(bisect_left(self._keys, (text,)), len(self._keys)):
            key, place = self._keys[number]
            if not key.startswith(text):
                return
            yield place

    def places(self, name: str) -> list[int]:
        """Returns the places of the images that a name fits.

        Args:
            name: a file of the dataset, of a source or of a collection, with or without extension; a key, or at least
                four characters of its beginning; or a pattern: without "/" of a file's name, else of its path.

        Raises:
            UserError: it fits no image or, unless it is a pattern, several.
        """
        asked = {name, os.path.abspath(os.path.expanduser(name))}
        known = self._called({_normal(os.path.basename(each)) for each in asked})
        places = _fitting(known, lambda names: not asked.isdisjoint(names))
        normal = {place: frozenset(map(_normal, names)) for place, names in known.items()}
        asked_normal = set(map(_normal, asked))
        places = places or _fitting(normal, lambda names: not asked_normal.isdisjoint(names))
        places = places or _fitting(normal, lambda names: any(n.endswith(f"/{_normal(name)}") for n in names))
        if not places and _GLOB.search(name):
            return self._fitting_pattern(name, asked)
        places = places or _fitting(
            normal, lambda names: any(n in asked_normal for each in names for n in bare_names(each))
        )
        if not places and len(name) >= _MIN_KEY:
            places = sorted(self._places_of_key(name))
        if not places:
            raise UserError(f"No image is called {name}; give a file's name, or the beginning of a key.")
        if len(places) > 1:
            listed = ", ".join(self._images[place].found().file for place in places[:3])
            raise UserError(f"Several images are called {name} ({listed}, …); give more of the path, or the key.")
        return places

    def _fitting_pattern(self, name: str, asked: set[str]) -> list[int]:
        """Returns the places of the images that a pattern fits: of names alone, or of paths where it has a "/"."""
        is_path = "/" in name
        patterns = [fnmatch.translate(_normal(each)) for each in (asked | {f"*/{name}"} if is_path else {name})]
        fits = re.compile("|".join(patterns)).match
        known = self._likely(max(re.split(r"[*?]|\[.*", os.path.basename(name)), key=len))
        places = _fitting(known, lambda names: any(fits(_normal(n)) for n in names if is_path or "/" not in n))
        if not places:
            raise UserError(f"No image fits {name}; look at the files with `dreamloom show`, or give a key.")
        return places

    def _likely(self, part: str) -> dict[int, frozenset[str]]:
        """Returns place → names, of images that have a text in them; making the names of all takes long."""
        wanted = _normal(part)
        texts = (_normal(f"{image.path}\n{image.image}\n{image.file}") for image in self._images)
        likely = (place for place, text in enumerate(texts) if wanted in text)
        return {place: self._images[place].names(self._workspace) for place in likely}

    def _called(self, bases: Iterable[str]) -> dict[int, frozenset[str]]:
        """Returns place → names, of images of which a file, with or without folder and extension, is called so."""
        places = sorted({place for base in bases for place in self._by_base.get(base, ())})
        return {place: self._images[place].names(self._workspace) for place in places}

    @cached_property
    def _by_base(self) -> Mapping[str, list[int]]:
        """Name of a file without its folder, as it is and as `bare_names` has it → places of images.

        That of a collection's own file is its image's key and an extension, and keys are found by themselves.
        """
        found: defaultdict[str, list[int]] = defaultdict(list)
        for place, image in enumerate(self._images):
            if image.image:
                found[image.image.rpartition("/")[2]].append(place)
            for file in (image.path, image.file):
                if file:
                    base = _normal(file.rpartition("/")[2])
                    stem = os.path.splitext(base)[0]
                    found[base].append(place)
                    found[stem].append(place)
                    found[stem.partition("_")[0]].append(place)
        return found


class _Image(NamedTuple):
    """An image, and where it lies."""

    collection: Collection
    key: str
    path: str | None
    url: str | None
    image: str | None
    file: str | None

    def found(self) -> FoundImage:
        """Returns it as people see it."""
        return FoundImage(self.collection, self.key, self.file or self.path or self.url or self.key)

    def names(self, workspace: Path | None) -> frozenset[str]:
        """Returns by what it goes: paths, and names of files, which have no "/"."""
        names = {os.path.normpath(self.path), os.path.basename(self.path)} if self.path else set()
        if self.image:
            names |= {f"{self.collection.root}/{self.image}", self.image.rpartition("/")[2]}
        if self.file:
            names |= {self.file, self.file.rpartition("/")[2], f"{workspace}/{self.file}"}
        return frozenset(names)


def _images(collection: Collection, workspace: Path | None) -> Iterator[_Image]:
    files = _manifest_files(collection, workspace)
    columns = collection.read(Table.RECORDS, columns=["key", "path", "url", "image"])
    for key, path, url, image in zip(*(columns[name].to_pylist() for name in columns.column_names), strict=True):
        yield _Image(collection, key, path, url, image, files.get(key))


def _manifest_files(collection: Collection, workspace: Path | None) -> dict[str, str]:
    """Key → file in the workspace, of the images of a collection."""
    if workspace is None or not manifest_path(workspace).exists():
        return {}
    rows = read_manifest(manifest_path(workspace), ["key", "source", "file"])
    columns = (rows[name].to_pylist() for name in ("key", "source", "file"))
    return {key: file for key, source, file in zip(*columns, strict=True) if source == collection.name and file}


def bare_names(file: str) -> tuple[str, str]:
    """Returns by what a file may be called, too: its name without the extension, and the caption in its name."""
    return os.path.splitext(file)[0], read_name(file)


def _normal(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _fitting(known: Mapping[int, frozenset[str]], fits: Callable[[frozenset[str]], bool]) -> list[int]:
    return [place for place, names in known.items() if fits(names)]


_VIEW = """
    select r.*, $name as source, s.aesthetic, s.similarity, h.choice, h.detail as choice_detail,
           t.caption, t.kind as caption_kind, t.doubtful, t.similarity as caption_similarity,
           c.language, c.punsafe, c.pwatermark, m.role, m.split, m.file, m.multiply, m.concepts
    from records r left join candidates c using (key) left join scores s using (key) left join choices h using (key)
         left join captions t using (key) left join (select * from manifest where source = $name) m using (key)
"""
"""What a condition can ask for: the columns of records, and these."""


def _find_where(collection: Collection, workspace: Path | None, where: str) -> list[FoundImage]:
    """Returns the images of a collection that meet a condition."""
    tables: dict[str, Any] = {**collection.sql_tables(), "manifest": MANIFEST.empty_table()}
    if workspace is not None and read_manifest_metadata(manifest_path(workspace)):  # which refuses what is newer
        tables["manifest"] = MANIFEST, [manifest_path(workspace)]
    name = f"'{collection.name.replace(chr(39), 2 * chr(39))}'"
    from dreamloom.scrape.collection.query import filter_rows  # DuckDB, which plan does without

    shown = "key, coalesce(file, path, url, key) as shown"
    rows: pa.Table = filter_rows(_VIEW.replace("$name", name), where, shown, tables)
    columns = (rows[name].to_pylist() for name in ("key", "shown"))
    return [FoundImage(collection, key, file) for key, file in zip(*columns, strict=True)]
