"""kohya's sd-scripts: one JSON for a folder of pictures, with a caption and tags for each.

    {"a man_1": {"caption": "a man on a bench", "tags": "outdoors, smiling"}}

https://github.com/kohya-ss/sd-scripts (finetune/merge_captions_to_metadata.py). The key is a name without extension, or
a whole path; to read, caption and tags are joined by a comma, as its trainer does.
"""

import json
import os
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from base.errors import UserError
from caption.formats.rows import Names, Note, Picture, Row, pictures
from caption.formats.target import Target
from scrape.ingest import EXTENSIONS

METADATA = ("meta.json", "meta_lat.json", "meta_clean.json", "meta_cap_dd.json", "meta_cap.json")
"""The names that its tools and their documents give the file, from the last step of the preparation to the first."""


def metadata_of(folder: Path) -> Path | None:
    """A folder's JSON, in it or beside it; the first of METADATA that is there."""
    places = [place / name for place in (folder, folder.absolute().parent) for name in METADATA]
    return next((place for place in places if place.is_file()), None)


def captions_of(folder: Path, found: Sequence[Picture], note: Note) -> Mapping[str, str]:
    """Picture's name → caption, of those that the JSON knows.

    Raises:
        UserError: there is no such JSON, or it can't be read.
    """
    path = metadata_of(folder)
    if path is None:
        raise UserError(f"{folder} has no {', '.join(METADATA)}, in it or beside it; put kohya's JSON there.")
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig", "replace"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} can't be read ({error}); make it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no mapping of pictures to captions; name a folder with kohya's JSON.")
    entries = {_key(name): entry for name, entry in content.items()}
    by_stem = _unique({key: key.rpartition("/")[2] for key in entries})
    folders_of = _unique({(p.folder, _key(p.base)): _key(p.base) for p in found})
    captions: dict[str, str] = {}
    used: set[str] = set()
    for picture in found:
        stem = _key(picture.base)
        keys = [_key(picture.name), _key(os.path.abspath(picture.file)), stem]
        keys += [by_stem[stem]] if stem in by_stem and stem in folders_of else []  # a path of another machine
        key = next((key for key in keys if key in entries), None)
        if key is not None:
            used.add(key)
            text = _caption(entries[key])
            captions |= {} if text is None else {picture.name: text}
    for key in entries.keys() - used:
        note("entry without a picture", f"{path}: {key}")
    return captions


def read(folder: Path, note: Note) -> Iterator[Row]:
    """Pictures with the captions of the folder's JSON.

    Raises:
        UserError: there is no such JSON, or it can't be read.
    """
    found = list(pictures(folder))
    captions = captions_of(folder, found, note)
    for picture in found:
        yield Row(picture.name, captions.get(picture.name), picture.file)


def write(rows: Sequence[Row], target: Target) -> Iterator[int]:
    """Pictures under their own names, and last the JSON."""
    names, entries = Names(), {}
    for done, row in enumerate(rows, 1):
        name = names.name(row.name)
        if target.picture(row, name):
            entries[os.path.splitext(name)[0]] = {"caption": row.caption}
        yield done
    target.text(METADATA[0], json.dumps(entries, ensure_ascii=False, indent=1).encode("utf-8", "replace"))


def _caption(entry: Any) -> str | None:
    """An entry's caption and tags, joined as the trainer joins them; None where it has neither."""
    if not isinstance(entry, dict):
        return None
    said = [entry.get("caption"), entry.get("tags")]
    words = [text for text in said if isinstance(text, str) and text]
    return ", ".join(words) if words else "" if said[0] == "" else None


def _key(name: str) -> str:
    stem, extension = os.path.splitext(name.replace("\\", "/"))
    return stem if extension.lower() in EXTENSIONS else name.replace("\\", "/")


Thing = TypeVar("Thing", bound=Hashable)


def _unique(stems: Mapping[Thing, str]) -> dict[str, Thing]:
    """Stem → the one that has it, of those that no other has."""
    counts = Counter(stems.values())
    return {stem: thing for thing, stem in stems.items() if counts[stem] == 1}
