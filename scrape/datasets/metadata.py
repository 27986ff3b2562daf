"""What a source knows of an image, and how to read it from a row of a table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dreamloom.scrape.collection import CaptionKind
from dreamloom.scrape.index.columns import match_columns


@dataclass(frozen=True)
class ImageMetadata:
    """What a source knows of an image: columns of its record, by these names."""

    text: str | None = None
    text_kind: CaptionKind = CaptionKind.NONE
    url: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    author: str | None = None
    sha256: str | None = None
    """Hash of the original bytes, where the source changed them; None: the bytes are the original."""
    original_width: int | None = None
    """Pixels before the source shrank the image; None: it did not."""
    original_height: int | None = None
    labels: tuple[str, ...] | None = None
    """What the image shows, as the dataset says; None: it does not."""


def metadata_from_row(row: Mapping[str, Any], kind: CaptionKind, caption_column: str | None = None) -> ImageMetadata:
    """Reads the metadata in a row, whose columns may be spelled as in any LAION-style index.

    Args:
        row: column → value.
        kind: who wrote the captions; NONE: captions are left out.
        caption_column: the column of captions; None: the one with a usual name.
    """
    names = match_columns(row)
    if caption_column:
        names["text"] = caption_column
    values = {column: row.get(name) for column, name in names.items()}
    caption = None if kind is CaptionKind.NONE else clean_text(values.get("text"))
    return ImageMetadata(
        text=caption,
        text_kind=kind if caption else CaptionKind.NONE,
        url=clean_text(values.get("url")),
        licence=clean_text(values.get("licence")),
        licence_url=clean_text(row.get("license_url")),
        author=clean_text(row.get("author")),
    )


def clean_text(value: Any) -> str | None:
    """Returns a value as text without surrounding spaces, of a list the first that is not blank; None: it is blank."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return next(filter(None, map(clean_text, value)), None)
    return (str(value).strip() or None) if value is not None else None
