"""The captions of a sample of a webdataset shard, read alike by ingest, convert and training.

Its text members count, then its metadata. The names are those that webdataset itself decodes as text and JSON
(https://github.com/webdataset/webdataset, autodecode.py), and kohya's .caption.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dreamloom.base.tables.documents import DocumentError, decode_text, parse_json
from dreamloom.base.tables.tables import captions_in_row
from dreamloom.base.text import shows_nothing

TEXTS = ("txt", "caption", "text", "transcript")
"""Extensions of members that are captions, in order of precedence."""
_DOCUMENTS = ("json", "jsn")
_OTHERS = frozenset(("cls", "cls2", "index", "inx", "id", "count", "npy", "npz", "pyd", "pickle", "pth", "pt", "ten"))
"""Extensions of members that are data of other kinds."""

Read = Callable[[str], bytes]
"""Returns the bytes of a member by its extension; empty where there is none, or it can't be read."""


def sample_metadata(members: Iterable[str], read: Read) -> dict[str, Any]:
    """Returns the metadata of a sample; empty: it has none.

    Args:
        members: the extensions of its members, in lower case.
        read: returns a member.

    Raises:
        DocumentError: it can't be read.
    """
    documents = [parse_json(read(extension)) for extension in _DOCUMENTS if extension in members]
    return next((document for document in documents if isinstance(document, dict)), {})


def sample_captions(
    members: Iterable[str], read: Read, metadata: Mapping[str, Any], column: str | None = None
) -> list[str]:
    """Returns the captions of a sample; none: all are blank.

    Args:
        members: the extensions of its members, in lower case.
        read: returns a member.
        metadata: what `sample_metadata` returned, or the sample's row in a table.
        column: the key of captions in the metadata, or a field of one ("caption.en"); None: the usual ones.

    Raises:
        DocumentError: the metadata holds fields, of which one has to be named.
    """
    texts = (decode_text(read(extension)) for extension in TEXTS if extension in members)
    text = next((text for text in texts if not shows_nothing(text)), None)
    return captions_in_row(metadata, column) if text is None else [text]


def why_no_caption(members: Iterable[str], read: Read, metadata: Mapping[str, Any]) -> str | None:
    """Returns what may hold the caption of a sample that has none, and is not read; None: nothing does."""
    try:
        captions_in_row(metadata)
    except DocumentError as error:
        return f"{error} as caption_column"
    try:
        sample_metadata(members, read)
    except DocumentError as error:
        return f"its JSON can't be read ({error})"
    known = {*TEXTS, *_DOCUMENTS}
    others = sorted(n for n in members if n not in known and n.rpartition(".")[2] not in _OTHERS)
    other = next(filter(read, others), None)
    return None if other is None else f"beside it lies .{other}, which is not read"
