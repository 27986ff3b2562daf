"""What a source knows of an image, and how to read it from a row of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dreamloom.base.tables.tables import caption_columns, captions_in_row, cell
from dreamloom.base.text import shows_nothing
from dreamloom.scrape.collection import CaptionKind
from dreamloom.scrape.index.columns import match_columns


@dataclass(frozen=True)
class ImageMetadata:
    """What a source knows of an image: columns of its record, by these names."""

    text: str | None = None
    """The caption; empty with the kind NONE: it is blank."""
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


@dataclass(frozen=True)
class CaptionRules:
    """Which captions of a source are taken."""

    kind: CaptionKind
    """Who wrote them; NONE: they are left out."""
    keep_empty: bool = False
    """Whether a blank caption is one."""
    column: str | None = None
    """Their column, or a field of one ("caption.en"); None: the first of a usual name that is filled."""

    def apply(self, text: str | None, is_blank: bool = False) -> tuple[str | None, CaptionKind]:
        """Returns a caption and its kind as a record has them. Of a blank one that is none, the text is "", not null.

        Args:
            text: the caption; blank or None: there is none.
            is_blank: whether somebody wrote a blank caption.
        """
        if self.kind is CaptionKind.NONE:
            return None, CaptionKind.NONE
        if text and not shows_nothing(text):
            return text, self.kind
        return ("" if is_blank else None), self.kind if is_blank and self.keep_empty else CaptionKind.NONE


MAX_SIDE = 2**31 - 1
"""Maximum width or height that a record can hold."""


def is_blank_text(value: Any) -> bool:
    """Tells whether a cell holds a text without letters, or a list of such."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(is_blank_text, value))
    return isinstance(value, str) and shows_nothing(value)


def metadata_from_row(row: Mapping[str, Any], captions: CaptionRules) -> ImageMetadata:
    """Reads the metadata in a row, whose columns may be spelled as in any LAION-style index.

    Args:
        row: column → value.
        captions: which captions are taken.

    Raises:
        DocumentError: the column of captions holds fields, of which one has to be named.
    """
    names = match_columns(row)
    values = {column: row.get(name) for column, name in names.items()}
    caption = None if captions.kind is CaptionKind.NONE else clean_text(find_caption(row, captions.column))
    cells = (cell(row, name) for name in ([captions.column] if captions.column else caption_columns(row)))
    text, text_kind = captions.apply(caption, any(map(is_blank_text, cells)))
    return ImageMetadata(
        text=text,
        text_kind=text_kind,
        url=clean_text(values.get("url")),
        licence=clean_text(values.get("licence")),
        licence_url=clean_text(row.get("license_url")),
        author=clean_text(row.get("author")),
    )


def find_caption(row: Mapping[str, Any], column: str | None = None) -> str | None:
    """Returns the caption in a row, of several the first; None: there is none. See `metadata_from_row`."""
    return next(iter(captions_in_row(row, column)), None)


def clean_text(value: Any) -> str | None:
    """Returns a value as text without surrounding spaces, of a list the first that is not blank.

    None: it is blank, null or NaN, or has fields.
    """
    if isinstance(value, list | tuple):
        return next(filter(None, map(clean_text, value)), None)
    if value is None or isinstance(value, Mapping) or value != value:
        return None
    return str(value).strip() or None


def pixels_or_none(value: Any) -> int | None:
    """Returns a width or height; None where it is no number of pixels."""
    return value if type(value) is int and 0 < value <= MAX_SIDE else None
