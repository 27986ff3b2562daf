"""Finds the images that somebody points at: by file, key or pattern, or by a condition on what the tables say."""

import fnmatch
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.caption.filename import read_name
from dreamloom.curate.manifest import MANIFEST, manifest_path, read_manifest
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
        names: files of the dataset, of a source or of a collection, with or without extension; keys or at least four
            characters of a key's beginning; or patterns of these.
        where: SQL on the columns of `_VIEW`; with names, an image has to meet it, too.

    Raises:
        UserError: nothing is asked for, a name fits no image or, unless it is a pattern, several; or the SQL is wrong.
    """
    if not names and where is None:
        raise UserError("Name images (files, keys or patterns), or say which with --where, such as 'aesthetic < 4'.")
    met = [] if where is None else [i for c in collections for i in _find_where(c, workspace, where)]
    if not names:
        return met
    known = [image for collection in collections for image in _known_images(collection, workspace)]
    chosen = {place for name in names for place in _places(name, known)}
    found = [image.found for place, image in enumerate(known) if place in chosen]
    return found if where is None else sorted(set(found) & set(met), key=found.index)


class _Known(NamedTuple):
    """An image and the names that it goes by."""

    found: FoundImage
    names: frozenset[str]


def _known_images(collection: Collection, workspace: Path | None) -> Iterator[_Known]:
    files, root = _manifest_files(collection, workspace), collection.root
    columns = collection.read(Table.RECORDS, columns=["key", "path", "url", "image"])
    for key, path, url, image in zip(*(columns[name].to_pylist() for name in columns.column_names), strict=True):
        file = files.get(key)
        names = {os.path.normpath(path), os.path.basename(path)} if path else set()
        if image:
            names |= {f"{root}/{image}", image.rpartition("/")[2]}
        if file:
            names |= {file, file.rpartition("/")[2], f"{workspace}/{file}"}
        yield _Known(FoundImage(collection, key, file or path or url or key), frozenset(names))


def _manifest_files(collection: Collection, workspace: Path | None) -> dict[str, str]:
    """Key → file in the workspace, of the images of a collection."""
    if workspace is None or not manifest_path(workspace).exists():
        return {}
    rows = read_manifest(manifest_path(workspace)).select(["key", "source", "file"])
    columns = (rows[name].to_pylist() for name in rows.column_names)
    return {key: file for key, source, file in zip(*columns, strict=True) if source == collection.name and file}


def _places(name: str, known: Sequence[_Known]) -> list[int]:
    """Returns the places of the images that a name fits."""
    asked = {name, os.path.abspath(os.path.expanduser(name))}
    places = _fitting(known, lambda image: not asked.isdisjoint(image.names))
    places = places or _fitting(known, lambda image: any(n.endswith(f"/{name}") for n in image.names))
    if not places and _GLOB.search(name):
        patterns = [re.compile(fnmatch.translate(each)) for each in asked]
        places = _fitting(known, lambda image: any(p.match(n) for p in patterns for n in image.names))
        if not places:
            raise UserError(f"No image fits {name}; look at the files with `dreamloom show`, or give a key.")
        return places
    begins = unicodedata.normalize("NFC", os.path.basename(name))
    places = places or _fitting(
        known,
        lambda image: any(n in asked for each in image.names if _begins(each, begins) for n in bare_names(each)),
    )
    if not places and len(name) >= _MIN_KEY:
        places = _fitting(known, lambda image: image.found.key.startswith(name))
    if not places:
        raise UserError(f"No image is called {name}; give a file's name, or the beginning of a key.")
    if len(places) > 1:
        listed = ", ".join(known[place].found.file for place in places[:3])
        raise UserError(f"Several images are called {name} ({listed}, …); give more of the path, or the key.")
    return places


def bare_names(file: str) -> tuple[str, str]:
    """Returns by what a file may be called, too: its name without the extension, and the caption in its name."""
    return os.path.splitext(file)[0], read_name(file)


def _begins(file: str, with_: str) -> bool:
    """Whether a file's name begins with a text; quicker than to take a hundred thousand names apart."""
    name = file.rpartition("/")[2]
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).startswith(with_)


def _fitting(known: Sequence[_Known], fits: Callable[[_Known], bool]) -> list[int]:
    return [place for place, image in enumerate(known) if fits(image)]


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
    has_manifest = workspace is not None and manifest_path(workspace).exists()
    manifest = read_manifest(manifest_path(workspace)) if workspace and has_manifest else MANIFEST.empty_table()
    name = f"'{collection.name.replace(chr(39), 2 * chr(39))}'"
    tables: dict[str, Any] = {**collection.sql_tables(), "manifest": manifest}
    from dreamloom.scrape.collection.query import filter_rows  # DuckDB, which plan does without

    shown = "key, coalesce(file, path, url, key) as shown"
    rows: pa.Table = filter_rows(_VIEW.replace("$name", name), where, shown, tables)
    columns = (rows[name].to_pylist() for name in ("key", "shown"))
    return [FoundImage(collection, key, file) for key, file in zip(*columns, strict=True)]
