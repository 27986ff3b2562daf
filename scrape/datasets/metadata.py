"""What a source says of an image, and how a row of a table says it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dreamloom.scrape.collection import CaptionKind
from dreamloom.scrape.index.columns import match_columns


@dataclass(frozen=True)
class ImageMetadata:
    """What a source says of an image; the columns of its record by these names."""

    text: str | None = None
    text_kind: CaptionKind = CaptionKind.NONE
    url: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    author: str | None = None
    sha256: str | None = None
    """Of the bytes as they first came, where the source has changed them since; None: as they are."""
    original_width: int | None = None
    """Pixels before the source shrank it; None: as it is."""
    original_height: int | None = None


def metadata_from_row(row: Mapping[str, Any], kind: CaptionKind, text: str | None = None) -> ImageMetadata:
    """The facts in a row, whose columns may be spelled as in any LAION-style index.

    Args:
        kind: who wrote the captions; NONE: they are left out.
        text: the column of captions; None: that of the usual name.
    """
    names = {**match_columns(row), **({"text": text} if text else {})}
    known = {ours: row.get(name) for ours, name in names.items()}
    caption = None if kind is CaptionKind.NONE else said(known.get("text"))
    return ImageMetadata(
        text=caption,
        text_kind=kind if caption else CaptionKind.NONE,
        url=said(known.get("url")),
        licence=said(known.get("licence")),
        licence_url=said(row.get("license_url")),
        author=said(row.get("author")),
    )


def said(value: Any) -> str | None:
    """A value as text without blanks around it, of a list the first that says something; None where nothing does."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return next(filter(None, map(said, value)), None)
    return (str(value).strip() or None) if value is not None else None
