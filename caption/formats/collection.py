"""A collection of ours, to be read: its captioned images, with what is known of where they come from."""

from collections.abc import Iterator
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.caption.formats.rows import Note, Row
from dreamloom.scrape.collection import Collection, Status, Table, open_collection

_FACTS = {"url": "url", "licence": "license", "licence_url": "license_url", "author": "author", "sha256": "sha256"}
_FACTS |= {"width": "width", "height": "height"}
"""Columns of records → what img2dataset and Hugging Face's datasets call them."""


def read(folder: Path, note: Note) -> Iterator[Row]:
    """The images with captions; before any are made, all images with the texts they came with.

    Raises:
        UserError: it is no collection with images.
    """
    collection = open_collection(folder, Table.RECORDS)
    captioned = collection.parts(Table.CAPTIONS)
    for part in collection.parts(Table.RECORDS):
        if captioned and part not in captioned:
            note("part without captions yet", f"{collection.root}: {part}; run dreamloom caption")
            continue
        try:
            captions = _captions(collection, part) if captioned else {}
            records = collection.read(Table.RECORDS, part, ["key", "status", "image", "text", *_FACTS]).to_pylist()
        except UserError as error:
            note("part that can't be read", str(error))
            continue
        for record in records:
            key = record["key"]
            if record["status"] != Status.OK or (captioned and key not in captions):
                continue
            facts = {name: record[column] for column, name in _FACTS.items() if record[column] is not None}
            name = f"{key}{Path(record['image']).suffix}"
            caption = captions[key] if captioned else record["text"]
            yield Row(name, caption, str(collection.root / record["image"]), facts=facts)


def _captions(collection: Collection, part: str) -> dict[str, str]:
    rows = collection.read(Table.CAPTIONS, part, ["key", "caption"])
    return dict(zip(rows["key"].to_pylist(), rows["caption"].to_pylist(), strict=True))
