"""Which images to show of a collection or a training folder: some, spread evenly, each with a line of text."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from dreamloom.scrape.collection import Collection, Status, Table

Pictures = list[tuple[Path, str]]
"""Picture file, and what to write under it."""

SHOWN = 48
"""Pictures on a contact sheet."""

Item = TypeVar("Item")


def of_collection(collection: Collection) -> Pictures:
    """Pictures under their captions; before that, all, under the texts they came with."""
    rows = collection.read(Table.RECORDS, columns=["key", "status", "image", "text"]).to_pylist()
    made = collection.read(Table.CAPTIONS, columns=["key", "caption", "doubtful"]).to_pylist()
    captions = {row["key"]: f"doubtful: {row['caption']}" if row["doubtful"] else row["caption"] for row in made}
    there = [row for row in rows if row["key"] in captions] or [row for row in rows if row["status"] == Status.OK]
    shown = spread(there, SHOWN)
    return [(collection.root / row["image"], captions.get(row["key"], row["text"] or "")) for row in shown]


def of_folder(folder: Path) -> Pictures:
    """Pictures of a training folder, of each of its folders as many as of the others where they have them."""
    from dreamloom.train.data.folder import read_folder

    folders = read_folder(folder)
    each = max(1, SHOWN // len(folders))
    whole = [[p for p in folder.pictures if p.stored.length is None] for folder in folders]  # and none in shards
    return [(p.stored.path, p.caption) for pictures in whole for p in spread(pictures, each)]


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, evenly spaced from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[place * (len(items) - 1) // max(1, most - 1)] for place in range(most)]
