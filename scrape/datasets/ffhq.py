"""FFHQ, 70,000 faces from Flickr: its layouts and its metadata. It has no captions, so all images share one.

https://github.com/NVlabs/ffhq-dataset
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, Summary
from dreamloom.base.tables.documents import DocumentError, parse_json, read_document
from dreamloom.scrape.collection import CaptionKind, Collection, key_of
from dreamloom.scrape.datasets.fields import (
    CAPTIONS,
    IMAGES,
    PROVENANCE,
    FolderSourceConfig,
    Limit,
    OptionalPath,
    PartRows,
    UserPath,
)
from dreamloom.scrape.datasets.image_files import ListedFile, find_images, size_of_folder
from dreamloom.scrape.datasets.ingest import ingest, part_reader, part_recipes
from dreamloom.scrape.datasets.metadata import ImageMetadata, clean_text
from dreamloom.scrape.datasets.source_kind import SourceKind
from dreamloom.scrape.datasets.source_recipes import SourceRecipes, file_version

_log = logging.getLogger(__name__)

METADATA = "ffhq-dataset-v2.json"
LICENCE = "CC BY-NC-SA 4.0"
"""Licence of the dataset as a whole (its LICENSE.txt), for images without one in the metadata."""
LICENCE_URL = "https://creativecommons.org/licenses/by-nc-sa/4.0/"

_NAME = re.compile(r"(?:img0*|0*)(\d{5})")
"""Of an image: 00000.png, or img00000000.png of StyleGAN's dataset_tool.py."""
_LAYOUTS = ("images1024x1024", "in-the-wild-images", "thumbnails128x128")


class FfhqConfig(FolderSourceConfig):
    """FFHQ as it is downloaded, one of its folders, or any folder of files named 00000.png and so on."""

    path: UserPath = Field(description="The folder that contains images1024x1024, or one that contains the images.")
    layout: Annotated[Literal["auto", "images1024x1024", "in-the-wild-images", "thumbnails128x128", "flat"], IMAGES] = (
        Field("auto", description="Which images to take; auto takes the first of these that exists.")
    )
    caption: Annotated[str, CAPTIONS] = Field("close up photo of a person", description="The caption of all images.")
    metadata: Annotated[OptionalPath, PROVENANCE] = Field(
        None, description=f"{METADATA}, for author, licence and URL; null: the one in the folder, if there is one."
    )
    limit: Limit = None
    part_rows: PartRows = PART_ROWS


def recipes(collection: Collection, config: FfhqConfig) -> dict[str, str]:
    """Returns part → recipe; writes nothing.

    Raises:
        UserError: the folder or the metadata does not exist, or there is no image of FFHQ.
    """
    return _recipes(collection, config, _list_files(config))


def ingest_ffhq(
    collection: Collection, config: FfhqConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records the images of FFHQ; see dreamloom.scrape.datasets.ingest.

    Raises:
        UserError: the folder or the metadata does not exist, or is not FFHQ's.
    """
    left_out = Counter[str]()
    metadata_file, files = _metadata_file(config), _list_files(config, left_out)
    version = str(file_version(metadata_file)) if metadata_file else ""

    def metadata_of(file: ListedFile) -> ImageMetadata:
        entry = _read_entries(metadata_file, version).get(file.path.stem[-5:], {}) if metadata_file else {}
        own_licence = clean_text(entry.get("license"))
        return ImageMetadata(
            text=config.caption,
            text_kind=CaptionKind.TEMPLATE,
            url=clean_text(entry.get("photo_url")),
            licence=own_licence or LICENCE,
            licence_url=clean_text(entry.get("license_url")) if own_licence else LICENCE_URL,
            author=clean_text(entry.get("author")),
        )

    reader = part_reader(files, config.part_rows, metadata_of)
    return ingest(collection, config, _recipes(collection, config, files), reader, progress, parts, left_out)


def _recipes(collection: Collection, config: FfhqConfig, files: Sequence[ListedFile]) -> SourceRecipes:
    metadata_file = _metadata_file(config)
    upstream = [file_version(metadata_file)] if metadata_file else []
    return part_recipes(collection, "ingest ffhq", config, files, config.part_rows, upstream)


def _list_files(config: FfhqConfig, left_out: Counter[str] | None = None) -> list[ListedFile]:
    folder = _folder(config)
    paths: dict[str, Path] = {}
    for path, _ in find_images(folder, left_out, config.follow_links):
        name = _NAME.fullmatch(path.stem)
        if name is None:
            continue
        first = paths.setdefault(name[1], path)
        if first is not path:
            raise UserError(f"{first} and {path} are both FFHQ's image {name[1]}; name the folder of one of them.")
    if not paths:
        raise UserError(f"{folder} contains no image named as FFHQ names them (00000.png); name FFHQ's folder.")
    stems = sorted(paths)[: config.limit]
    return [ListedFile(key_of("ffhq", stem), paths[stem], file_version(paths[stem])) for stem in stems]


def _folder(config: FfhqConfig) -> Path:
    if config.layout == "auto":
        return next((config.path / layout for layout in _LAYOUTS if (config.path / layout).is_dir()), config.path)
    return config.path if config.layout in ("flat", config.path.name) else config.path / config.layout


def _metadata_file(config: FfhqConfig) -> Path | None:
    if config.metadata is None:
        default = config.path / METADATA
        return default if default.is_file() else None
    if not config.metadata.is_file():
        raise UserError(f"{config.metadata} is not a file; name {METADATA}, or leave metadata out.")
    return config.metadata


@lru_cache(maxsize=1)
def _read_entries(file: Path, version: str) -> dict[str, dict[str, Any]]:
    """Returns image ("00000") → photo_url, author, license, …; of the rest of the 268 MB nothing is kept."""

    def keep_metadata(item: dict[str, Any]) -> Any:
        return item.get("metadata", None if "file_path" in item else item)

    try:
        document = parse_json(read_document(file), object_hook=keep_metadata, of_many=True)
    except DocumentError as error:
        raise UserError(
            f"{file} is cut off, or no JSON ({error}); download it again, or leave metadata out."
        ) from error
    entries = document if isinstance(document, dict) else {}
    sound = {
        number: entry for number, entry in entries.items() if _NUMBER.fullmatch(number) and isinstance(entry, dict)
    }
    if not sound:
        raise UserError(f"{file} is JSON, but not FFHQ's (no number has metadata); download it again, or leave it out.")
    if len(sound) < len(entries):
        _log.warning("%s: %d entries are no metadata of an image and are left out", file, len(entries) - len(sound))
    return {f"{int(number):05d}": entry for number, entry in sound.items()}


_NUMBER = re.compile(r"[0-9]{1,9}")


KIND = SourceKind(
    name="ffhq",
    help="Bring in the faces of FFHQ, in the layout of its download script.",
    config=FfhqConfig,
    recipes=recipes,
    ingest=ingest_ffhq,
    measure=lambda config: size_of_folder(config.path, config.follow_links),
)
