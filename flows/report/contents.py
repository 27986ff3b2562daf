"""What a collection, a workspace or a training folder holds: its captions, and some of its images to look at."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dreamloom.base.images.pixels import ImageError
from dreamloom.base.stage import recipe
from dreamloom.curate.manifest import DROPPED, manifest_path, read_manifest, read_manifest_metadata
from dreamloom.curate.source import workspace_collection
from dreamloom.flows.terminal.tables import source_names
from dreamloom.scrape.collection import Collection, Status, Table

if TYPE_CHECKING:
    from dreamloom.train.data.image import ByteRange

Captions = list[tuple[str, str]]
"""Pairs of an image's key or file name and its caption."""

CaptionedImages = list[tuple[Path | bytes, str]]
"""Pairs of an image file, or the bytes of one, and the text to write below it."""

SHEET_IMAGES = 48
"""Images on a contact sheet."""

Item = TypeVar("Item")


def captions_of_collection(collection: Collection) -> Captions:
    """Returns the captions of a collection by key, or the texts that its images came with where none is written yet."""
    import pyarrow.compute as pc

    if collection.parts(Table.CAPTIONS):
        rows = collection.read(Table.CAPTIONS, columns=["key", "caption"])
    else:
        records = collection.read(Table.RECORDS, columns=["key", "text", "status"])
        with_text = pc.and_(pc.is_valid(records["text"]), pc.equal(records["status"], Status.OK))
        rows = records.filter(with_text).select(["key", "text"])
    return list(zip(*(rows.column(number).to_pylist() for number in (0, 1)), strict=True))


def captions_of_workspace(workspace: Path, sources: Sequence[str] | None = None) -> Captions:
    """Returns the captions of the dataset by file name, or those of the collections where there is no dataset yet.

    Args:
        sources: names of the collections; None: all of the workspace.
    """
    import pyarrow.compute as pc

    if not manifest_path(workspace).exists():
        names = source_names(workspace) if sources is None else sources
        collections = [workspace_collection(workspace, name) for name in names]
        return [pair for collection in collections for pair in captions_of_collection(collection)]
    rows = read_manifest(manifest_path(workspace), ["file", "caption", "split"])
    rows = rows.filter(pc.and_(pc.not_equal(rows["split"], DROPPED), pc.is_valid(rows["caption"])))
    return list(zip(rows["file"].to_pylist(), rows["caption"].to_pylist(), strict=True))


def captions_recipe(folder: Path, sources: Sequence[str] | None = None) -> str | None:
    """Returns a hash of the captions of a workspace or a collection; None: only who reads them knows them.

    Args:
        sources: names of the collections of a workspace without a dataset; None: all.
    """
    if content := read_manifest_metadata(manifest_path(folder)).get("content"):
        return recipe("captions", 1, {}, [content])
    names = source_names(folder) if sources is None else sources
    collections = [workspace_collection(folder, name) for name in names] or [Collection(folder)]
    stamps = [c.stamps(Table.CAPTIONS) or c.stamps(Table.RECORDS) for c in collections]
    return recipe("captions", 1, {}, map(str, stamps)) if any(stamps) else None


def captions_of_training_folder(folder: Path) -> Captions:
    """Returns the captions of a training folder by file name; an image may have several."""
    from dreamloom.train.data.folder import read_training_folder

    images = (image for subfolder in read_training_folder(folder) for image in subfolder.images)
    return [(image.name, parts.caption) for image in images for parts in image.captions]


def images_of_collection(collection: Collection) -> CaptionedImages:
    """Returns up to SHEET_IMAGES images with their captions, or with the texts they came with where none is written.

    Only the parts of these images are read.
    """
    captioned = _count_rows(collection, Table.CAPTIONS)
    table, counts = (
        (Table.CAPTIONS, captioned)
        if any(captioned.values())
        else (
            Table.RECORDS,
            _count_rows(collection, Table.RECORDS),
        )
    )
    wanted = evenly_spaced(range(sum(counts.values())), SHEET_IMAGES)
    shown: CaptionedImages = []
    first = 0
    for part, count in counts.items():
        places = [place - first for place in wanted if first <= place < first + count]
        first += count
        if places and part in collection.parts(Table.RECORDS):
            shown += _images_of_part(collection, table, part, places)
    return shown


def _count_rows(collection: Collection, table: Table) -> dict[str, int]:
    """Returns part → rows that have an image, or a caption."""
    return {part: collection.summary(table, part).kept for part in collection.parts(table)}


def _images_of_part(collection: Collection, table: Table, part: str, places: Sequence[int]) -> CaptionedImages:
    """Returns the images at some places of a part's captions, or of those of its records that have an image."""
    import pyarrow.compute as pc

    records = collection.read(Table.RECORDS, part, ["key", "status", "image", "text"])
    if table is Table.RECORDS:
        rows = records.filter(pc.equal(records["status"], Status.OK)).take(places).to_pylist()
        return [(collection.image(row["image"]), row["text"] or "") for row in rows]
    captions = collection.read(Table.CAPTIONS, part, ["key", "caption", "doubtful"]).take(places)
    images = dict(zip(*(records[name].to_pylist() for name in ("key", "image")), strict=True))
    return [
        (collection.image(images[row["key"]]), f"doubtful: {row['caption']}" if row["doubtful"] else row["caption"])
        for row in captions.to_pylist()
        if images.get(row["key"])
    ]


def images_of_training_folder(folder: Path) -> CaptionedImages:
    """Returns about SHEET_IMAGES images of a training folder, equally many from each subfolder that has enough."""
    from dreamloom.train.data.folder import read_training_folder

    subfolders = read_training_folder(folder)
    count = max(1, SHEET_IMAGES // len(subfolders))
    shown = [image for each in subfolders for image in evenly_spaced(each.images, count)]
    return [(_readable(image.source), image.caption) for image in shown]


def _readable(source: "ByteRange") -> Path | bytes:
    try:
        return source.decodable()
    except ImageError:
        return source.path  # of a shard, which can't be decoded: the sheet says so


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Returns at most `count` items, evenly spaced from the first to the last."""
    if len(items) <= count:
        return list(items)
    return [items[number * (len(items) - 1) // max(1, count - 1)] for number in range(count)]
