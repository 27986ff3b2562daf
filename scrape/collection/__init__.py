"""The Collection: one source's images, and everything known about them."""

from dreamloom.scrape.collection.collection import Collection, FunnelRow, open_collection
from dreamloom.scrape.collection.schema import SCHEMAS, CaptionKind, Choice, Row, Status, Table, key_of

__all__ = [
    "SCHEMAS",
    "CaptionKind",
    "Choice",
    "Collection",
    "FunnelRow",
    "Row",
    "Status",
    "Table",
    "key_of",
    "open_collection",
]
