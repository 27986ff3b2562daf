"""Which pictures to show of a collection or a training folder: some, spread evenly, each with a line of text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from scrape.collection import Collection, Status, Table

Pictures = list[tuple[Path, str]]
"""Picture file, and what to write under it."""

SHOWN = 48
"""Pictures on a contact sheet."""

Item = TypeVar("Item")


def of_collection(collection: Collection) -> Pictures:
    """Pictures that are there, under their captions, or the texts they came with."""
    rows = collection.read(Table.RECORDS, columns=["key", "status", "image", "text"]).to_pylist()
    captions: dict[str, str] = dict(
        zip(*collection.read(Table.CAPTIONS, columns=["key", "caption"]).to_pydict().values(), strict=True)
    )
    there = spread([row for row in rows if row["status"] == Status.OK], SHOWN)
    return [(collection.root / row["image"], _text(row, captions)) for row in there]


def of_folder(folder: Path) -> Pictures:
    """Pictures of a training folder, of each of its folders as many as of the others where they have them."""
    from train.folder import read_folder

    folders = read_folder(folder)
    each = max(1, SHOWN // len(folders))
    return [(p.path, p.caption) for f in folders for p in spread(f.pictures, each)]


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, evenly spaced from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[place * (len(items) - 1) // max(1, most - 1)] for place in range(most)]


def _text(row: dict[str, Any], captions: dict[str, str]) -> str:
    return captions.get(row["key"]) or row["text"] or ""
