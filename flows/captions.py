"""The captions of a folder of ours, each with the image that has it."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from dreamloom.curate.assemble import DROPPED, manifest_path, read_manifest
from dreamloom.flows.tables import sources_of
from dreamloom.scrape.collection import Collection, Status, Table
from dreamloom.train.data.folder import read_folder

Captions = list[tuple[str, str]]
"""Picture and caption."""


def of_collection(collection: Collection) -> Captions:
    """The captions made; before any is, the texts that the images came with. Named by keys."""
    if collection.parts(Table.CAPTIONS):
        rows = collection.read(Table.CAPTIONS, columns=["key", "caption"])
    else:
        records = collection.read(Table.RECORDS, columns=["key", "text", "status"])
        there = pc.and_(pc.is_valid(records["text"]), pc.equal(records["status"], Status.OK))
        rows = records.filter(there).select(["key", "text"])
    return list(zip(*(rows.column(number).to_pylist() for number in (0, 1)), strict=True))


def of_workspace(workspace: Path, sources: Sequence[str] | None = None) -> Captions:
    """The captions of the dataset, named by files; before there is one, those of the collections.

    Args:
        sources: the collections; None: all that are there.
    """
    if not manifest_path(workspace).exists():
        names = sources_of(workspace) if sources is None else sources
        return [one for name in names for one in of_collection(Collection(workspace / "collections" / name))]
    rows = read_manifest(manifest_path(workspace)).select(["file", "caption", "split"])
    rows = rows.filter(pc.and_(pc.not_equal(rows["split"], DROPPED), pc.is_valid(rows["caption"])))
    return list(zip(rows["file"].to_pylist(), rows["caption"].to_pylist(), strict=True))


def of_training_folder(folder: Path) -> Captions:
    """The captions of a training folder, named by files."""
    return [(picture.name, picture.caption) for each in read_folder(folder) for picture in each.pictures]
