"""COCO: photos from Flickr with some five captions each, of 2014 and of 2017.

https://cocodataset.org/#format-data
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, StageConfig, Summary
from dreamloom.scrape.collection import SCHEMAS, CaptionKind, Collection, Table, key_of
from dreamloom.scrape.collection.parts import make_parts, split
from dreamloom.scrape.datasets.coco_instances import read_instances
from dreamloom.scrape.datasets.ingest import ListedFile, UserPath, file_version, ingest, part_reader, part_recipes
from dreamloom.scrape.datasets.metadata import ImageMetadata
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize, size_of_files


class CocoConfig(StageConfig):
    """COCO's captions and the photos they belong to."""

    annotations: UserPath = Field(description="captions_train2017.json, or another of COCO's captions files.")
    images: UserPath | None = Field(
        None, description="The folder of its photos: train2017, val2017, …; null: they are downloaded by scrape."
    )
    instances: UserPath | None = Field(
        None, description="instances_train2017.json, …, which says what is in a photo, for the categories."
    )
    caption: Literal["first", "longest", "random", "all"] = Field(
        "first", description="Which of a photo's captions to take; random by `seed`, all one after the other."
    )
    seed: int = Field(0, description="Of random captions.")
    categories: list[str] = Field(
        [], description="Only photos that show one of these (dog, or a whole group: animal); none: all."
    )
    exclude_categories: list[str] = Field([], description="No photo that shows one of these (person, …).")
    licences: list[int] = Field(
        [], description="Only photos of these licences, by COCO's ids (4 BY, 5 BY-SA, 7 none known, …); none: all."
    )
    limit: int | None = Field(None, ge=1, description="Take only so many photos that are there, by ascending id.")
    part_rows: int = Field(PART_ROWS, ge=1, description="Photos a part: the unit of work and of resume.")

    @model_validator(mode="after")
    def _knows_what_is_in_photos(self) -> Self:
        if (self.categories or self.exclude_categories) and self.instances is None:
            raise ValueError("categories need instances, COCO's file that says what is in a photo")
        return self


@dataclass(frozen=True)
class _Photo:
    id: int
    key: str
    file_name: str
    captions: tuple[str, ...]
    width: int | None
    height: int | None
    url: str | None
    licence_id: int | None
    licence: str | None
    licence_url: str | None


def output_table(config: CocoConfig) -> Table:
    """What this fills: records, or candidates, of which scrape then makes records."""
    return Table.CANDIDATES if config.images is None else Table.RECORDS


def recipes(collection: Collection, config: CocoConfig) -> dict[str, str]:
    """Part → recipe; writes nothing.

    Raises:
        UserError: a file or the folder is not there or not COCO's, or none of its photos is there.
    """
    return _recipes(config, find_photos(config))


def ingest_coco(
    collection: Collection, config: CocoConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records COCO's photos; one that the file names and that is not there is `missing_file`.

    Without a folder of photos their addresses become candidates, for scrape.

    Raises:
        UserError: a file or the folder is not there or not COCO's, or none of its photos is there.
    """
    photos = {photo.key: photo for photo in _photos(config.annotations, file_version(config.annotations))}
    found = find_photos(config)
    made_by = _recipes(config, found)

    def facts(one: ListedFile) -> ImageMetadata:
        photo = photos[one.key]
        text = _choose(photo, config)
        kind = CaptionKind.NONE if text is None else CaptionKind.HUMAN
        return ImageMetadata(text, kind, photo.url, photo.licence, photo.licence_url)

    if config.images is not None:
        return ingest(collection, config, made_by, part_reader(found, config.part_rows, facts), progress, parts)
    plan = split(found, config.part_rows)

    def work(part: str, _: Progress) -> tuple[list[dict[str, Any]], Summary]:
        rows = [_candidate(photos[one.key], facts(one)) for one in plan[part]]
        return rows, Summary(rows=len(rows), kept=len(rows))

    return make_parts(collection, Table.CANDIDATES, config, made_by, work, progress, parts)


def _recipes(config: CocoConfig, listed: Sequence[ListedFile]) -> dict[str, str]:
    return part_recipes("ingest coco", config, listed, config.part_rows, [file_version(config.annotations)])


def _candidate(photo: _Photo, facts: ImageMetadata) -> dict[str, Any]:
    row = {name: value for name, value in asdict(facts).items() if name in SCHEMAS[Table.CANDIDATES].names}
    return {**row, "key": photo.key, "width": photo.width, "height": photo.height, "sha256": None}


def find_photos(config: CocoConfig) -> list[ListedFile]:
    """The photos asked for, by ascending id.

    Raises:
        UserError: a file or the folder is not there or not COCO's, or none of its photos is there.
    """
    if config.images is not None and not config.images.is_dir():
        raise UserError(f"{config.images} is no folder; name the one of the photos that {config.annotations} names.")
    wanted = _wanted(config)
    listed: list[ListedFile] = []
    there = 0
    for photo in _photos(config.annotations, file_version(config.annotations)):
        if (config.licences and photo.licence_id not in config.licences) or not wanted(photo.id):
            continue
        one = _listed(config, photo)
        listed.append(one)
        there += one.exists
        if there == config.limit:
            break
    if not listed:
        raise UserError(f"No photo of {config.annotations} is of these categories and licences; ask for more.")
    if not there:
        raise UserError(
            f"{config.images} holds none of the {len(listed)} photos that {config.annotations} names; "
            "name the folder of the same year and split, or leave images out, and they are downloaded."
        )
    return listed


def _listed(config: CocoConfig, photo: _Photo) -> ListedFile:
    if config.images is None:
        if photo.url is None:
            raise UserError(f"{config.annotations} has no coco_url of photo {photo.id}; name the folder of the photos.")
        return ListedFile(photo.key, Path(photo.file_name), photo.url)
    path = config.images / photo.file_name
    return ListedFile(photo.key, path, file_version(path))


def _wanted(config: CocoConfig) -> Callable[[int], bool]:
    """Whether a photo shows what it shall, by its id."""
    if config.instances is None:
        return lambda _: True
    names, shown = read_instances(config.instances, file_version(config.instances))
    one_of, none_of = (
        {number for asked in some for number in _numbers(asked, names, config)}
        for some in (config.categories, config.exclude_categories)
    )
    return lambda photo: (
        (not one_of or bool(shown.get(photo, frozenset()) & one_of)) and not (shown.get(photo, frozenset()) & none_of)
    )


def _numbers(asked: str, names: dict[int, tuple[str, str]], config: CocoConfig) -> set[int]:
    found = {number for number, called in names.items() if asked.lower() in called}
    if not found:
        known = ", ".join(sorted({name for called in names.values() for name in called}))
        raise UserError(f"{config.instances} knows no category {asked}; it knows {known}.")
    return found


def _choose(photo: _Photo, config: CocoConfig) -> str | None:
    if not photo.captions:
        return None
    match config.caption:
        case "first":
            return photo.captions[0]
        case "longest":
            return max(photo.captions, key=len)
        case "all":
            return " ".join(caption if caption[-1:] in ".!?" else f"{caption}." for caption in photo.captions)
    return photo.captions[int(key_of(str(config.seed), photo.key), 16) % len(photo.captions)]


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
            id=image["id"],
            key=key_of("coco", str(image["id"])),
            file_name=_file_name(image["file_name"]),
            captions=tuple(captions.get(image["id"], [])),
            width=image.get("width"),
            height=image.get("height"),
            url=image.get("coco_url"),
            licence_id=image.get("license"),
            licence=licence.get("name"),
            licence_url=licence.get("url"),
        )
    return tuple(photos.values())


def _file_name(name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"file_name {name!r} leads out of the folder")
    return name


def _clean(caption: str) -> str:
    """One line, single spaces: the annotators left double ones, line ends, and " ." at the end."""
    return re.sub(r" +([.,])", r"\1", " ".join(caption.split()))


def measure(config: CocoConfig) -> SourceSize:
    """Counts the photos that exist, or, without a folder of photos, those to download.

    Raises:
        UserError: a file or the folder does not exist or is not COCO's, or none of its photos exists.
    """
    photos = find_photos(config)
    if config.images is None:
        return SourceSize(len(photos), "photos to download", 0)
    return size_of_files(photo.path for photo in photos if photo.exists)


KIND = SourceKind(
    name="coco",
    help="Bring in the photos of COCO with their captions.",
    config=CocoConfig,
    recipes=recipes,
    ingest=ingest_coco,
    measure=measure,
    table=output_table,
)
