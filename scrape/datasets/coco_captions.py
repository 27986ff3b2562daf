"""The captions files of COCO: its photos, with their captions, sizes, addresses and licences.

https://cocodataset.org/#format-data
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import DocumentError, parse_json, read_document
from dreamloom.base.tables.tables import caption_texts
from dreamloom.scrape.collection import key_of
from dreamloom.scrape.datasets.image_files import leads_out
from dreamloom.scrape.datasets.metadata import clean_text, is_blank_text, pixels_or_none

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photo:
    """A photo, and what the captions file says of it."""

    id: int
    key: str
    file_name: str
    captions: tuple[str, ...]
    is_blank: bool
    """Whether there are annotations, and all are blank."""
    width: int | None
    height: int | None
    url: str | None
    licence_id: int | None
    licence: str | None
    licence_url: str | None


@lru_cache(maxsize=2)
def read_photos(file: Path, version: str) -> tuple[Photo, ...]:
    """Reads the photos of a captions file, by ascending id; one that is named twice counts once.

    Args:
        file: the captions file.
        version: version of the file, so that a changed one is read again.

    Raises:
        UserError: it can't be read, or is not a captions file.
    """
    try:
        document = parse_json(read_document(file), of_many=True)
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}); name one of COCO's captions files.") from error
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); name one of COCO's captions files.") from error
    try:
        if not isinstance(document, dict):
            raise ValueError("it is no mapping of images and annotations")
        return _parse(file, document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{file} is not a captions file of COCO ({why}); name one like captions_val2017.json."
        ) from error


def _parse(file: Path, document: Mapping[str, Any]) -> tuple[Photo, ...]:
    """Reads the photos and their captions; an entry that is none costs itself, and is told."""
    faults: list[str] = []
    captions: dict[Any, list[str]] = {}
    blank: set[Any] = set()
    for annotation in _entries(document, "annotations", ("image_id", "caption"), faults):
        text = annotation["caption"]
        photo_id = id_number(annotation["image_id"])
        try:
            texts = ([text] if text.strip() else []) if isinstance(text, str) else caption_texts(text)
        except DocumentError as error:
            faults.append(f"the caption of image {photo_id} {error}")
            continue
        if texts:
            captions.setdefault(photo_id, []).extend(map(_clean, texts))
        elif is_blank_text(text):
            blank.add(photo_id)
        elif text is not None:
            faults.append(f"the caption of image {photo_id} is no text")
    licences = {id_number(each["id"]): each for each in _entries(document, "licenses", ("id",), faults)}
    photos: dict[Any, Photo] = {}
    for image in _entries(document, "images", ("id", "file_name"), faults):
        photo_id = id_number(image["id"])
        is_blank = photo_id in blank and photo_id not in captions
        try:
            photo = _photo(image, tuple(captions.get(photo_id, ())), is_blank, licences)
        except ValueError as error:
            faults.append(f"the image {image['id']}: {error}")
        else:
            if (same := photos.setdefault(photo_id, photo)).file_name != photo.file_name:
                faults.append(f"the image {image['id']} is both {same.file_name} and {photo.file_name}")
    if faults and (not photos or not (captions or blank)):
        raise ValueError(faults[0])
    if faults:
        _log.warning("%s: %d entries are left out; the first, %s", file, len(faults), faults[0])
    return tuple(photos.values())


def _entries(
    document: Mapping[str, Any], name: str, keys: Sequence[str], faults: list[str]
) -> Iterator[dict[str, Any]]:
    """Yields the entries of a list that have these keys, by id; ids may be numbers or texts."""
    entries = document.get(name, []) if name == "licenses" else document[name]
    if not isinstance(entries, list):
        raise ValueError(f"{name} is no list")
    sound = []
    for number, entry in enumerate(entries):
        lacking = next((key for key in keys if not isinstance(entry, dict) or not _is_filled(entry, key)), None)
        if lacking is None:
            sound.append(entry)
        else:
            faults.append(f"number {number} of {name} has no {lacking}")
    yield from sorted(sound, key=lambda entry: _order(entry.get("id")))


def _is_filled(entry: Mapping[str, Any], key: str) -> bool:
    return key in entry and (key == "caption" or type(entry[key]) in (int, str) or _is_whole(entry[key]))


def _is_whole(identity: Any) -> bool:
    """Whether it is a float that stands for a whole number, as tables with gaps have ids."""
    return type(identity) is float and identity.is_integer()


def id_number(identity: Any) -> Any:
    """Returns an id as the number that it stands for; a text that stands for none as it is."""
    if _is_whole(identity) or (type(identity) is str and identity.isdecimal() and len(identity) < 20):
        return int(identity)
    return identity


def _order(identity: Any) -> tuple[int, int, str]:
    """Numbers first, also those that are written as texts."""
    number = id_number(identity)
    return (0, number, str(identity)) if type(number) is int else (1, 0, str(identity))


def _photo(
    image: Mapping[str, Any], captions: tuple[str, ...], is_blank: bool, licences: Mapping[Any, Mapping[str, Any]]
) -> Photo:
    licence_id = id_number(image["license"]) if _is_filled(image, "license") else None
    licence = licences.get(licence_id, {})
    return Photo(
        id=id_number(image["id"]),
        key=key_of("coco", str(int(image["id"]) if _is_whole(image["id"]) else image["id"])),
        file_name=_file_name(image["file_name"]),
        captions=captions,
        is_blank=is_blank,
        width=pixels_or_none(image.get("width")),
        height=pixels_or_none(image.get("height")),
        url=clean_text(image.get("coco_url")),
        licence_id=licence_id,
        licence=clean_text(licence.get("name")),
        licence_url=clean_text(licence.get("url")),
    )


def _file_name(name: str) -> str:
    if not isinstance(name, str) or not name or leads_out(name):
        raise ValueError(f"file_name {name!r} leads out of the folder")
    return name


def _clean(caption: str) -> str:
    """Returns a caption on one line with single spaces: the annotators left double ones, line ends, and " ."."""
    return re.sub(r" +([.,])", r"\1", " ".join(caption.split()))
