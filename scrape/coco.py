"""COCO: photos from Flickr with some five captions each, of 2014 and of 2017.

https://cocodataset.org/#format-data
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from base.errors import UserError
from base.progress import Progress, silent
from base.stage import StageConfig, Summary
from scrape.collection import CaptionKind, Collection, key_of
from scrape.facts import Facts
from scrape.ingest import Listed, UserPath, ingest, is_there, items_of, recipes_of, version_of
from scrape.parts import PART_ROWS


class CocoConfig(StageConfig):
    """COCO's captions and the photos they belong to."""

    annotations: UserPath = Field(description="captions_train2017.json, or another of COCO's captions files.")
    images: UserPath = Field(description="The folder of its photos: train2017, val2017, …")
    caption: Literal["first", "longest", "random"] = Field(
        "first", description="Which of a photo's captions to take; random is the same in every run."
    )
    limit: int | None = Field(None, ge=1, description="Take only so many photos that are there, by ascending id.")
    part_rows: int = Field(PART_ROWS, ge=1, description="Photos a part: the unit of work and of resume.")


@dataclass(frozen=True)
class _Photo:
    key: str
    file_name: str
    captions: tuple[str, ...]
    url: str | None
    licence: str | None
    licence_url: str | None


def recipes(collection: Collection, config: CocoConfig) -> dict[str, str]:
    """Part → recipe; writes nothing.

    Raises:
        UserError: the file or the folder is not there, it is no captions file, or none of its photos is there.
    """
    return recipes_of("ingest coco", config, _find(config), config.part_rows, [version_of(config.annotations)])


def ingest_coco(
    collection: Collection, config: CocoConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records COCO's photos; one that the file names and that is not there is `missing_file`. See scrape.ingest.

    Raises:
        UserError: the file or the folder is not there, it is no captions file, or none of its photos is there.
    """
    photos = {photo.key: photo for photo in _photos(config.annotations, version_of(config.annotations))}

    def facts(one: Listed) -> Facts:
        photo = photos[one.key]
        text = _choose(photo, config.caption)
        kind = CaptionKind.NONE if text is None else CaptionKind.HUMAN
        return Facts(text, kind, photo.url, photo.licence, photo.licence_url)

    items = items_of(_find(config), config.part_rows, facts)
    return ingest(collection, config, recipes(collection, config), items, progress, parts)


def _find(config: CocoConfig) -> list[Listed]:
    if not config.images.is_dir():
        raise UserError(f"{config.images} is no folder; name the one of the photos that {config.annotations} names.")
    listed: list[Listed] = []
    there = 0
    for photo in _photos(config.annotations, version_of(config.annotations)):
        path = config.images / photo.file_name
        one = Listed(photo.key, path, version_of(path))
        listed.append(one)
        there += is_there(one)
        if there == config.limit:
            break
    if not there:
        raise UserError(
            f"{config.images} holds none of the {len(listed)} photos that {config.annotations} names; "
            "name the folder of the same year and split."
        )
    return listed


def _choose(photo: _Photo, which: str) -> str | None:
    if not photo.captions:
        return None
    if which == "first":
        return photo.captions[0]
    if which == "longest":
        return max(photo.captions, key=len)
    return photo.captions[int(photo.key, 16) % len(photo.captions)]


@lru_cache(maxsize=2)
def _photos(file: Path, version: str) -> tuple[_Photo, ...]:
    """The photos of a captions file, by ascending id; one that is named twice counts once."""
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}); name one of COCO's captions files.") from error
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}); name one of COCO's captions files.") from error
    try:
        return _parse(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{file} is no COCO captions file ({why}); name a file like captions_val2017.json.") from error


def _parse(document: dict[str, Any]) -> tuple[_Photo, ...]:
    captions: dict[Any, list[str]] = {}
    for annotation in sorted(document["annotations"], key=lambda each: each["id"]):
        captions.setdefault(annotation["image_id"], []).append(_clean(annotation["caption"]))
    licences = {each["id"]: each for each in document.get("licenses", [])}
    photos: dict[Any, _Photo] = {}
    for image in sorted(document["images"], key=lambda each: each["id"]):
        licence = licences.get(image.get("license"), {})
        photos[image["id"]] = _Photo(
            key_of("coco", str(image["id"])),
            _file_name(image["file_name"]),
            tuple(captions.get(image["id"], [])),
            image.get("coco_url"),
            licence.get("name"),
            licence.get("url"),
        )
    return tuple(photos.values())


def _file_name(name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"file_name {name!r} leads out of the folder")
    return name


def _clean(caption: str) -> str:
    """One line, single spaces: the annotators left double ones, line ends, and " ." at the end."""
    return re.sub(r" +([.,])", r"\1", " ".join(caption.split()))
