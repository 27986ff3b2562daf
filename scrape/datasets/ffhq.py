"""FFHQ, 70,000 faces from Flickr: its layouts, its metadata, and one caption for all, as it has none.

https://github.com/NVlabs/ffhq-dataset
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, StageConfig, Summary
from dreamloom.scrape.collection import CaptionKind, Collection, key_of
from dreamloom.scrape.datasets.ingest import (
    ListedFile,
    UserPath,
    file_version,
    find_images,
    ingest,
    part_reader,
    part_recipes,
)
from dreamloom.scrape.datasets.metadata import ImageMetadata
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize, size_of_files

METADATA = "ffhq-dataset-v2.json"
LICENCE = "CC BY-NC-SA 4.0"
"""Of the set as a whole (its LICENSE.txt), for images of which the metadata says nothing."""
LICENCE_URL = "https://creativecommons.org/licenses/by-nc-sa/4.0/"

_LAYOUTS = ("images1024x1024", "in-the-wild-images", "thumbnails128x128")


class FfhqConfig(StageConfig):
    """FFHQ as it is downloaded, one of its folders, or any folder of files named 00000.png and on."""

    path: UserPath = Field(description="The folder that holds images1024x1024, or one that holds the images.")
    layout: Literal["auto", "images1024x1024", "in-the-wild-images", "thumbnails128x128", "flat"] = Field(
        "auto", description="Which images to take; auto takes the first of these that is there."
    )
    caption: str = Field("close up photo of a person", description="The caption of all images.")
    metadata: UserPath | None = Field(
        None, description=f"{METADATA}, for author, licence and address; by default the one in the folder, if any."
    )
    limit: int | None = Field(None, ge=1, description="Take only so many images, the first ones.")
    part_rows: int = Field(PART_ROWS, ge=1, description="Pictures a part: the unit of work and of resume.")


def recipes(collection: Collection, config: FfhqConfig) -> dict[str, str]:
    """Part → recipe; writes nothing.

    Raises:
        UserError: the folder or the metadata is not there, or there is no FFHQ image.
    """
    return _recipes(config, _find(config))


def ingest_ffhq(
    collection: Collection, config: FfhqConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records the images of FFHQ; see dreamloom.scrape.datasets.ingest.

    Raises:
        UserError: the folder or the metadata is not there, or is not FFHQ's.
    """
    metadata, listed = _metadata_file(config), _find(config)
    version = file_version(metadata) if metadata else ""

    def facts(one: ListedFile) -> ImageMetadata:
        entry = _entries(metadata, version).get(one.path.stem, {}) if metadata else {}
        own_licence = entry.get("license")
        return ImageMetadata(
            text=config.caption,
            text_kind=CaptionKind.TEMPLATE,
            url=entry.get("photo_url") or None,
            licence=own_licence or LICENCE,
            licence_url=entry.get("license_url") if own_licence else LICENCE_URL,
            author=entry.get("author") or None,
        )

    items = part_reader(listed, config.part_rows, facts)
    return ingest(collection, config, _recipes(config, listed), items, progress, parts)


def _recipes(config: FfhqConfig, listed: Sequence[ListedFile]) -> dict[str, str]:
    metadata = _metadata_file(config)
    upstream = [file_version(metadata)] if metadata else []
    return part_recipes("ingest ffhq", config, listed, config.part_rows, upstream)


def _find(config: FfhqConfig) -> list[ListedFile]:
    folder = _folder(config)
    paths: dict[str, Path] = {}
    for path, _ in find_images(folder):
        if not re.fullmatch(r"\d{5}", path.stem):
            continue
        other = paths.setdefault(path.stem, path)
        if other is not path:
            raise UserError(f"{other} and {path} are both FFHQ's image {path.stem}; name the folder of one of them.")
    if not paths:
        raise UserError(f"{folder} holds no image named as FFHQ names them (00000.png); name FFHQ's folder.")
    chosen = sorted(paths)[: config.limit]
    return [ListedFile(key_of("ffhq", stem), paths[stem], file_version(paths[stem])) for stem in chosen]


def _folder(config: FfhqConfig) -> Path:
    if config.layout == "auto":
        return next((config.path / layout for layout in _LAYOUTS if (config.path / layout).is_dir()), config.path)
    return config.path if config.layout in ("flat", config.path.name) else config.path / config.layout


def _metadata_file(config: FfhqConfig) -> Path | None:
    if config.metadata is None:
        beside = config.path / METADATA
        return beside if beside.is_file() else None
    if not config.metadata.is_file():
        raise UserError(f"{config.metadata} is no file; name {METADATA}, or leave metadata out.")
    return config.metadata


@lru_cache(maxsize=1)
def _entries(file: Path, version: str) -> dict[str, dict[str, Any]]:
    """Picture ("00000") → photo_url, author, license, …; the file is 268 MB, so of the rest nothing is kept."""

    def without_the_rest(item: dict[str, Any]) -> Any:
        return item.get("metadata", None if "file_path" in item else item)

    try:
        entries = json.loads(file.read_bytes(), object_hook=without_the_rest)
        return {f"{int(number):05d}": dict(entry) for number, entry in entries.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{file} is not {METADATA} ({error}); name that file, or leave metadata out.") from error


def measure(config: FfhqConfig) -> SourceSize:
    """Counts the images in the folder.

    Raises:
        UserError: the folder does not exist or holds no image.
    """
    return size_of_files(path for path, _ in find_images(config.path))


KIND = SourceKind(
    name="ffhq",
    help="Bring in the faces of FFHQ, in the layout of its download script.",
    config=FfhqConfig,
    recipes=recipes,
    ingest=ingest_ffhq,
    measure=measure,
)
