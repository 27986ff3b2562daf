"""The JSON of kohya's sd-scripts: a caption and tags for each image of a folder.

    {"a man_1": {"caption": "a man on a bench", "tags": "outdoors, smiling"}}

https://github.com/kohya-ss/sd-scripts (finetune/merge_captions_to_metadata.py). The key is a name without extension, or
a whole path; caption and tags are joined by a comma, as its trainer does.
"""

import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dreamloom.base.errors import UserError
from dreamloom.base.files.folder_names import path_key
from dreamloom.base.files.image_types import IMAGE_EXTENSIONS
from dreamloom.base.tables.documents import DocumentError, parse_json, read_document

METADATA = ("meta.json", "meta_lat.json", "meta_clean.json", "meta_cap_dd.json", "meta_cap.json")
"""Names that its tools and documents give the file, from the last step of the preparation to the first."""


@dataclass(frozen=True)
class KohyaMetadata:
    """The captions in a folder's JSON."""

    path: Path
    captions: Mapping[str, str]
    """Image, by its path inside the folder → caption."""
    others: Sequence[str]
    """Keys without an image."""


def read_metadata(folder: Path, names: Sequence[str]) -> KohyaMetadata:
    """Reads the JSON in a folder, or beside it: the first of METADATA that exists.

    Args:
        folder: the folder of images.
        names: the images, by their paths inside the folder.

    Raises:
        UserError: there is no such JSON, or it can't be read.
    """
    candidates = [parent / name for parent in (folder, folder.absolute().parent) for name in METADATA]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise UserError(f"{folder} has no {', '.join(METADATA)}, in it or beside it; put kohya's JSON there.")
    return match_metadata(path, folder, names)


def match_metadata(path: Path, folder: Path, names: Sequence[str]) -> KohyaMetadata:
    """Reads a JSON, and finds the images of a folder in it.

    Args:
        path: the JSON.
        folder: the folder of images.
        names: the images, by their paths inside the folder.

    Raises:
        UserError: it can't be read.
    """
    entries = {_key(name): entry for name, entry in _read(path).items()}
    by_stem = _unique({key: key.rpartition("/")[2] for key in entries})
    folders_of = _unique({os.path.split(_key(name)): os.path.basename(_key(name)) for name in names})
    captions: dict[str, str] = {}
    used: set[str] = set()
    for name in names:
        stem = os.path.basename(_key(name))
        keys = [_key(name), _key(os.path.abspath(folder / name)), stem]
        keys += [by_stem[stem]] if stem in by_stem and stem in folders_of else []  # a path of another machine
        key = next((key for key in keys if key in entries), None)
        if key is not None:
            used.add(key)
            text = _caption(entries[key])
            captions |= {} if text is None else {name: text}
    return KohyaMetadata(path, captions, sorted(entries.keys() - used))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_document(path))
    except (OSError, DocumentError) as error:
        raise UserError(f"{path} can't be read ({error}); create it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not map images to captions; name a folder with kohya's JSON.")
    return content


def _caption(entry: Any) -> str | None:
    """Returns an entry's caption and tags, joined as the trainer joins them; None: it has neither.

    Of several captions the first is taken.
    """
    if not isinstance(entry, dict):
        return None
    caption, tags = entry.get("caption"), entry.get("tags")
    if isinstance(caption, list):
        caption = next((each for each in caption if isinstance(each, str) and each), None)
    texts = [caption, *(tags if isinstance(tags, list) else [tags])]
    not_empty = [text for text in texts if isinstance(text, str) and text]
    return ", ".join(not_empty) if not_empty else "" if caption == "" else None


def _key(name: str) -> str:
    name = path_key(name)
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in IMAGE_EXTENSIONS else name


Owner = TypeVar("Owner", bound=Hashable)


def _unique(stems: Mapping[Owner, str]) -> dict[str, Owner]:
    """Returns stem → its owner, for the stems that have one owner only."""
    counts = Counter(stems.values())
    return {stem: owner for owner, stem in stems.items() if counts[stem] == 1}
