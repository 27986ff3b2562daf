"""Finds the images of a part that are stored already, so that a changed caption stores none again."""

from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.file_index import WholeFile, content_hashes
from dreamloom.base.stage import recipe, recipe_values
from dreamloom.scrape.collection import Collection, Row, Status, Table
from dreamloom.scrape.collection.records import IMAGE_COLUMNS
from dreamloom.scrape.datasets.fields import FilesConfig, SourceConfig
from dreamloom.scrape.datasets.source_recipes import VERSION

_COLUMNS = ["path", *IMAGE_COLUMNS]
"""What is known of an image once it is stored."""


def store_recipe(config: SourceConfig) -> dict[str, str]:
    """Returns what stored images depend on beside their originals, for the metadata of records."""
    names = FilesConfig.model_fields.keys() & type(config).model_fields.keys()
    values = {name: value for name, value in recipe_values(config).items() if name in names}
    return {"store": recipe("store", VERSION, values)}


def find_stored(collection: Collection, part: str, config: SourceConfig) -> dict[str, Row]:
    """Returns key → path and what storing told, of images that an earlier part stored from the bytes that are there.

    Args:
        collection: the collection.
        part: the part that is made, of which there may be an earlier one.
        config: how images are stored.
    """
    try:
        if collection.models(Table.RECORDS, part) != store_recipe(config):
            return {}
        rows = collection.read(Table.RECORDS, part, ["key", "status", *_COLUMNS]).to_pylist()
    except UserError:  # it can't be read, and is made anew
        return {}
    known = [row for row in rows if row["status"] == Status.OK and row["image_sha256"] and row["path"]]
    originals = content_hashes([WholeFile(Path(row["path"])) for row in known])
    images = content_hashes([WholeFile(collection.root / row["image"]) for row in known])
    return {
        row["key"]: {name: row[name] for name in _COLUMNS}
        for row, original, image in zip(known, originals, images, strict=True)
        if original == row["sha256"] and image == row["image_sha256"]
    }
