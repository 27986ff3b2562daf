"""A collection of another project, or of a shared place: a library of images that several projects use.

It may be a copy in a store (`dreamloom collection copy`). It is only read: no lock, no leftovers removed, no link that
could write to it. Records come over as they are, and images are copied (their space is shared on file systems that
can). Scores and captions are found there by their recipes (dreamloom.scrape.collection.known_rows), so no model is
asked again what the library knows.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit, copy
from dreamloom.base.files.own_folders import own_folder_kind
from dreamloom.base.files.remote import address_of
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PathKind, StageConfig, Summary, recipe
from dreamloom.base.threads import map_ordered
from dreamloom.scrape.collection import CaptionKind, Collection, Row, Status, Table
from dreamloom.scrape.collection.library import open_library
from dreamloom.scrape.collection.parts import make_parts
from dreamloom.scrape.collection.records import file_sha256, settle_images, summarize_records
from dreamloom.scrape.datasets.fields import CAPTIONS, UserPath
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize

VERSION = 1
"""Raised when other records are made of the same library."""
_THREADS = min(8, os.cpu_count() or 1)


class CollectionConfig(StageConfig):
    """A collection of another project or of a shared place, which is only read."""

    path: Annotated[UserPath, PathKind.ADDRESS] = Field(
        description="Folder of the collection, collections/NAME of another project's workspace; or its copy in a store "
        "(s3://bucket/people)."
    )
    take_captions: Annotated[bool, CAPTIONS] = Field(
        False,
        description="Take the captions that the collection has as the texts of its images, with their kind (human, "
        "alt, template, model); else their texts are those they came with. Captions of the model that the project "
        "names are found there anyway.",
    )


def recipes(collection: Collection, config: CollectionConfig) -> dict[str, str]:
    """Returns part → recipe, by the content of the library's tables; writes nothing.

    Raises:
        UserError: the folder is no collection, or the one to fill.
    """
    library = _open(collection, config)
    return {part: _recipe(library, config, part) for part in library.parts(Table.RECORDS)}


def ingest_collection(
    collection: Collection, config: CollectionConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Takes over the records and images of a library.

    Args:
        collection: the collection to fill.
        config: the library.
        progress: called with the number of images done.
        parts: only these; None: all.

    Raises:
        UserError: the folder is no collection, or the one to fill; or the library changed meanwhile, or an image is not
            what its records say.
    """
    part_recipes = recipes(collection, config)
    library = open_library(config.path)

    def make_part(part: str, progress: Progress) -> tuple[list[Row], Summary]:
        folder, rows = collection.image_folder(part), list[Row]()
        records = _records(library, config, part)
        stored = [Path(record["image"]).name for record in records if record["status"] == Status.OK]
        library.place.bring([f"images/{part}/{name}" for name in stored if not (folder / name).is_file()])
        for row in map_ordered(partial(_take, library, folder), records, _THREADS, ahead=4 * _THREADS):
            rows.append(row)
            progress(len(rows), len(records))
        if _recipe(library, config, part) != part_recipes[part]:
            raise _changed(config)
        settle_images(folder, rows)
        return rows, summarize_records(rows)

    summary = make_parts(collection, Table.RECORDS, config, part_recipes, make_part, progress, parts)
    if recipes(collection, config) != part_recipes:  # what was taken before the change is made again by the next run
        raise _changed(config)
    return summary


def measure(config: CollectionConfig) -> SourceSize:
    """Counts the images of a library, and adds up their bytes."""
    import pyarrow.compute as pc

    rows = open_library(config.path).read(Table.RECORDS, columns=["status", "bytes"])
    stored = rows.filter(pc.equal(rows["status"], Status.OK))
    return SourceSize(len(stored), "images", pc.sum(stored["bytes"]).as_py() or 0)


def _open(collection: Collection, config: CollectionConfig) -> Collection:
    if address := address_of(config.path):
        if address == collection.address:
            raise _is_own(address)
        return open_library(config.path)
    own, path = collection.root.resolve(), config.path.resolve()
    if own.is_relative_to(path) or path.is_relative_to(own):
        raise _is_own(config.path)
    if own_folder_kind(path) != "collection":
        inner = sorted(each.parent.name for each in (path / "collections").glob("*/records"))
        found = f"; {config.path / 'collections'} has {', '.join(inner)}" if inner else ""
        raise UserError(f"{config.path} is no collection{found}. Name a folder with records and images in it.")
    return Collection(config.path)


def _is_own(path: Path | str) -> UserError:
    return UserError(f"{path} is the collection that is to be filled, or in it; name that of another project.")


def _recipe(library: Collection, config: CollectionConfig, part: str) -> str:
    taken = [Table.RECORDS, *([Table.CAPTIONS] if config.take_captions else [])]
    digests = [f"{part} {table} {library.digest(table, part)}" for table in taken]
    return recipe("ingest collection", VERSION, config, digests)


def _records(library: Collection, config: CollectionConfig, part: str) -> list[Row]:
    records: list[Row] = library.read(Table.RECORDS, part).to_pylist()
    if config.take_captions and part in library.parts(Table.CAPTIONS):
        rows = library.read(Table.CAPTIONS, part, ["key", "caption", "kind"]).to_pylist()
        captions: Mapping[str, Row] = {row["key"]: row for row in rows if row["kind"] != CaptionKind.NONE}
        for record in records:
            if caption := captions.get(record["key"]):
                record |= {"text": caption["caption"], "text_kind": caption["kind"]}
    return records


def _take(library: Collection, folder: Path, record: Row) -> Row:
    """Copies an image, unless it is there, and returns its row of the records."""
    if record["status"] != Status.OK:
        return record
    name, wanted = Path(record["image"]).name, record["image_sha256"]  # a path that leads elsewhere is not followed
    target, stored = folder / name, f"images/{folder.name}/{name}"
    if wanted is None or not target.is_file() or file_sha256(target) != wanted:
        with commit(target, sync=False) as temporary:
            _copy(library, stored, temporary)
            found = file_sha256(temporary)
            if wanted not in (None, found):
                raise _differs(library, stored, "is not what its records say")
            wanted = found
    return record | {"image": stored, "image_sha256": wanted}


def _copy(library: Collection, image: str, target: Path) -> None:
    source = library.image(image)
    try:
        if isinstance(source, bytes):
            target.write_bytes(source)
        else:
            copy(source, target)
    except FileNotFoundError:
        raise _differs(library, image, "is not there") from None


def _changed(config: CollectionConfig) -> UserError:
    where = address_of(config.path) or config.path
    return UserError(f"{where} changed while it was read; run again when its project is done with it.")


def _differs(library: Collection, image: str, how: str) -> UserError:
    return UserError(
        f"{library.place.describe(image)} {how}: its project is at work on it, or it is damaged. Run again when that "
        f"is done; `dreamloom collection verify {library.where}` says what is amiss."
    )


KIND = SourceKind(
    name="collection",
    help="Take a collection of another project, or of a shared place, with its scores and captions; it is only read.",
    config=CollectionConfig,
    recipes=recipes,
    ingest=ingest_collection,
    measure=measure,
)
