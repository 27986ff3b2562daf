"""COCO: photos from Flickr with about five captions each, of 2014 and of 2017.

https://cocodataset.org/#format-data
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, Summary
from dreamloom.scrape.collection import SCHEMAS, CaptionKind, Collection, Row, Table, key_of
from dreamloom.scrape.collection.parts import make_parts, split
from dreamloom.scrape.datasets.coco_captions import Photo, read_photos
from dreamloom.scrape.datasets.coco_instances import read_instances
from dreamloom.scrape.datasets.fields import CAPTIONS, IMAGES, FilesConfig, KeepEmpty, OptionalPath, PartRows, UserPath
from dreamloom.scrape.datasets.image_files import ListedFile, NamedFiles
from dreamloom.scrape.datasets.ingest import ingest, part_reader, part_recipes
from dreamloom.scrape.datasets.metadata import CaptionRules, ImageMetadata
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize, size_of_files
from dreamloom.scrape.datasets.source_recipes import SourceRecipes, file_version

_log = logging.getLogger(__name__)


class CocoConfig(FilesConfig):
    """COCO's captions and the photos that they belong to."""

    annotations: UserPath = Field(description="captions_train2017.json, or another of COCO's captions files.")
    images: Annotated[OptionalPath, IMAGES] = Field(
        None, description="Folder of the photos (train2017, val2017, …); null: `scrape` downloads them."
    )
    instances: Annotated[OptionalPath, IMAGES] = Field(
        None, description="instances_train2017.json, …, which names what photos show; null: categories are not known."
    )
    categories: Annotated[list[str], IMAGES] = Field(
        [], description="Take photos that show one of these categories (dog) or groups (animal) only; empty: all."
    )
    exclude_categories: Annotated[list[str], IMAGES] = Field(
        [], description="Leave out photos that show one of these categories or groups (person)."
    )
    licences: Annotated[list[int], IMAGES] = Field(
        [], description="Take photos of these licences only, by COCO's ids (4 BY, 5 BY-SA, 7 none known); empty: all."
    )
    limit: Annotated[int | None, IMAGES] = Field(
        None, ge=1, description="Maximum number of existing photos, by ascending id; null: all."
    )
    part_rows: PartRows = PART_ROWS
    caption_choice: Annotated[Literal["first", "longest", "random", "all"], CAPTIONS] = Field(
        "first", description="Which of a photo's captions to take: one, random by `seed`, or all, joined."
    )
    keep_empty: KeepEmpty = False
    seed: Annotated[int, CAPTIONS] = Field(0, description="Seed of random captions.")

    @model_validator(mode="after")
    def _knows_categories(self) -> Self:
        if (self.categories or self.exclude_categories) and self.instances is None:
            raise ValueError("categories need instances, COCO's file that names what photos show")
        return self


def output_table(config: CocoConfig) -> Table:
    """Returns the table that this kind fills: records, or candidates, which `scrape` downloads."""
    return Table.CANDIDATES if config.images is None else Table.RECORDS


def recipes(collection: Collection, config: CocoConfig) -> dict[str, str]:
    """Returns part → recipe; writes nothing.

    Raises:
        UserError: see `find_photos`.
    """
    return _recipes(collection, config, find_photos(config))


def ingest_coco(
    collection: Collection, config: CocoConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records COCO's photos; one that is named but does not exist is `missing_file`.

    Without a folder of photos, their URLs become candidates for `scrape`.

    Raises:
        UserError: see `find_photos`.
    """
    photos = {photo.key: photo for photo in read_photos(config.annotations, str(file_version(config.annotations)))}
    files = find_photos(config)
    part_recipe = _recipes(collection, config, files)
    labels_of = _labels(config)
    captions = CaptionRules(CaptionKind.HUMAN, config.keep_empty)

    def metadata_of(file: ListedFile) -> ImageMetadata:
        photo = photos[file.key]
        text = _choose_caption(photo, config)
        text, kind = captions.apply(text, photo.is_blank)
        return ImageMetadata(text, kind, photo.url, photo.licence, photo.licence_url, labels=labels_of(photo.id))

    if config.images is not None:
        reader = part_reader(files, config.part_rows, metadata_of)
        return ingest(collection, config, part_recipe, reader, progress, parts)
    plan = split(files, config.part_rows)

    def make_part(part: str, _: Progress) -> tuple[list[Row], Summary]:
        rows = [_candidate(photos[file.key], metadata_of(file)) for file in plan[part]]
        return rows, Summary(rows=len(rows), kept=len(rows))

    return make_parts(
        collection, Table.CANDIDATES, config, part_recipe, make_part, progress, parts, by_content=part_recipe.by_content
    )


def measure(config: CocoConfig) -> SourceSize:
    """Counts the photos that exist, or, without a folder of photos, those to download.

    Raises:
        UserError: see `find_photos`.
    """
    photos = find_photos(config)
    if config.images is None:
        return SourceSize(len(photos), "photos to download", 0)
    return size_of_files(photo.path for photo in photos if photo.exists)


def find_photos(config: CocoConfig) -> list[ListedFile]:
    """Lists the photos that the config asks for, by ascending id.

    Raises:
        UserError: a file or the folder does not exist or is not COCO's, or none of its photos exists.
    """
    if config.images is not None and not config.images.is_dir():
        raise UserError(f"{config.images} is not a folder; name that of the photos in {config.annotations}.")
    shows_wanted = _category_filter(config)
    files: list[ListedFile] = []
    existing = without_url = 0
    images = None if config.images is None else NamedFiles(config.images)
    for photo in read_photos(config.annotations, str(file_version(config.annotations))):
        if (config.licences and photo.licence_id not in config.licences) or not shows_wanted(photo.id):
            continue
        if images is None and photo.url is None:
            without_url += 1
            continue
        files.append(_listed_file(images, photo))
        existing += files[-1].exists
        if existing == config.limit:
            break
    if without_url:
        if not files:
            raise UserError(f"{config.annotations} has no coco_url of any photo; name the folder of the photos.")
        _log.warning("%s has no coco_url of %d photos, which are left out", config.annotations, without_url)
    if not files:
        raise UserError(f"No photo of {config.annotations} is of these categories and licences; ask for more.")
    if not existing:
        raise UserError(
            f"{config.images} holds none of the {len(files)} photos that {config.annotations} names; "
            "name the folder of the same year and split, or leave images out, and they are downloaded."
        )
    return files


def _recipes(collection: Collection, config: CocoConfig, files: Sequence[ListedFile]) -> SourceRecipes:
    upstream = [file_version(config.annotations)]
    if config.instances is not None:
        upstream.append(file_version(config.instances, before="labels "))
    return part_recipes(collection, "ingest coco", config, files, config.part_rows, upstream, output_table(config))


def _candidate(photo: Photo, metadata: ImageMetadata) -> Row:
    row = {name: value for name, value in asdict(metadata).items() if name in SCHEMAS[Table.CANDIDATES].names}
    return {**row, "key": photo.key, "width": photo.width, "height": photo.height, "sha256": None}


def _listed_file(images: NamedFiles | None, photo: Photo) -> ListedFile:
    if images is None:
        return ListedFile(photo.key, Path(photo.file_name), file_version(before=photo.url or ""))
    path = images.find(photo.file_name)
    return ListedFile(photo.key, path, file_version(path))


def _category_filter(config: CocoConfig) -> Callable[[int], bool]:
    """Returns a function that tells by the id of a photo whether it shows what the config asks for."""
    if config.instances is None:
        return lambda _: True
    names, shown = read_instances(config.instances, str(file_version(config.instances)))
    wanted, unwanted = (
        {number for category in categories for number in _category_ids(category, names, config)}
        for categories in (config.categories, config.exclude_categories)
    )
    return lambda photo: (
        (not wanted or bool(shown.get(photo, frozenset()) & wanted)) and not (shown.get(photo, frozenset()) & unwanted)
    )


def _labels(config: CocoConfig) -> Callable[[int], tuple[str, ...] | None]:
    """Returns a function that names the categories that a photo shows, by its id."""
    if config.instances is None:
        return lambda _: None
    names, shown = read_instances(config.instances, str(file_version(config.instances)))
    return lambda photo: tuple(sorted(names[number][0] for number in shown.get(photo, ()) if number in names))


def _category_ids(category: str, names: dict[int, tuple[str, str]], config: CocoConfig) -> set[int]:
    ids = {number for number, own_names in names.items() if category.lower() in own_names}
    if not ids:
        names_text = ", ".join(sorted({name for own_names in names.values() for name in own_names}))
        raise UserError(f"{config.instances} has no category {category}; it has {names_text}.")
    return ids


def _choose_caption(photo: Photo, config: CocoConfig) -> str | None:
    if not photo.captions:
        return None
    match config.caption_choice:
        case "first":
            return photo.captions[0]
        case "longest":
            return max(photo.captions, key=len)
        case "all":
            return " ".join(caption if caption[-1:] in ".!?" else f"{caption}." for caption in photo.captions)
    return photo.captions[int(key_of(str(config.seed), photo.key), 16) % len(photo.captions)]


KIND = SourceKind(
    name="coco",
    help="Bring in the photos of COCO with their captions.",
    config=CocoConfig,
    recipes=recipes,
    ingest=ingest_coco,
    measure=measure,
    table=output_table,
)
