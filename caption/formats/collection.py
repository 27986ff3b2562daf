"""Reads a collection: its captioned images, with the metadata of their origin."""

from collections.abc import Iterator
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.caption.formats.rows import Note, Row
from dreamloom.scrape.collection import Collection, Status, Table, open_collection

_METADATA = {"url": "url", "licence": "license", "licence_url": "license_url", "author": "author", "sha256": "sha256"}
_METADATA |= {"width": "width", "height": "height"}
"""Columns of records → what img2dataset and Hugging Face's datasets call them."""


def read(folder: Path, note: Note) -> Iterator[Row]:
    """Reads the images with captions; before any exist, all images with the texts they came with.

    Raises:
        UserError: the folder is no collection with images.
    """
    collection = open_collection(folder, Table.RECORDS)
    captioned = collection.parts(Table.CAPTIONS)
    for part in collection.parts(Table.RECORDS):
        if captioned and part not in captioned:
            note("part without captions yet", f"{collection.root}: {part}; run dreamloom caption")
            continue
        try:
            captions = _captions(collection, part) if captioned else {}
            records = collection.read(Table.RECORDS, part, ["key", "status", "image", "text", *_METADATA]).to_pylist()
        except UserError as error:
            note("part that can't be read", str(error))
            continue
        for record in records:
            key = record["key"]
            if record["status"] != Status.OK or (captioned and key not in captions):
                continue
            metadata = {name: record[column] for column, name in _METADATA.items() if record[column] is not None}
            name = f"{key}{Path(record['image']).suffix}"
            caption = captions[key] if captioned else record["text"]
            yield Row(name, caption, str(collection.root / record["image"]), metadata=metadata)


def _captions(collection: Collection, part: str) -> dict[str, str]:
    rows = collection.read(Table.CAPTIONS, part, ["key", "caption"])
    return dict(zip(rows["key"].to_pylist(), rows["caption"].to_pylist(), strict=True))
