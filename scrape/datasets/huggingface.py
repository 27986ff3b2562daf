"""Hugging Face datasets of images on this machine: parquet files that contain them, or an `imagefolder`.

https://huggingface.co/docs/datasets/image_dataset
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, Summary
from dreamloom.scrape.collection import CaptionKind, Collection
from dreamloom.scrape.datasets import parquet
from dreamloom.scrape.datasets.fields import (
    IMAGES,
    CaptionColumn,
    FolderSourceConfig,
    KeepEmpty,
    Limit,
    PartRows,
    UserPath,
    WhoseCaptions,
)
from dreamloom.scrape.datasets.image_files import find_files, size_of_folder
from dreamloom.scrape.datasets.imagefolder import ImageFolder, read_imagefolder, unread_tables
from dreamloom.scrape.datasets.ingest import ReadPart, ingest, part_reader, part_recipes
from dreamloom.scrape.datasets.metadata import CaptionRules
from dreamloom.scrape.datasets.row_files import RowFile
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize
from dreamloom.scrape.datasets.source_recipes import SourceRecipes
from dreamloom.scrape.datasets.splits import of_split

_log = logging.getLogger(__name__)

_STAGE = "ingest huggingface"
_NOT_ROWS = ("cache-", "indices")
"""Beginnings of Arrow files that datasets leaves beside those of the rows."""


class HuggingfaceConfig(FolderSourceConfig):
    """The files of a dataset, as `hf download` leaves them or as `imagefolder` reads them."""

    path: UserPath = Field(description="The dataset's folder, or one parquet or Arrow file.")
    split: Annotated[str | None, IMAGES] = Field(
        None, description="Take only files of this split, by their name or folder (train, …); null: all."
    )
    image_column: Annotated[str | None, IMAGES] = Field(
        None, description="Column of images in parquet files; null: the one that contains image bytes."
    )
    limit: Limit = None
    part_rows: PartRows = PART_ROWS
    caption_column: CaptionColumn = None
    caption_kind: WhoseCaptions = "human"
    keep_empty: KeepEmpty = False


def recipes(collection: Collection, config: HuggingfaceConfig) -> dict[str, str]:
    """Returns part → recipe; writes nothing.

    Raises:
        UserError: there is no image, no such column, or a file can't be read.
    """
    return _plan(collection, config)[0]


def ingest_huggingface(
    collection: Collection, config: HuggingfaceConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records the images of a dataset; see dreamloom.scrape.datasets.ingest.

    Raises:
        UserError: there is no image, no such column, or a file can't be read.
    """
    left_out = Counter[str]()
    part_recipe, reader = _plan(collection, config, left_out)
    files = find_row_files(config)
    if note := parquet.unread_captions(files[0], _captions(config)) if files else _unread_tables(config):
        _log.warning("%s", note)
    return ingest(collection, config, part_recipe, reader, progress, parts, left_out)


def measure(config: HuggingfaceConfig) -> SourceSize:
    """Counts the rows of its files, or the images of the imagefolder.

    Raises:
        UserError: there is no image, or no file of the split.
    """
    files = find_row_files(config)
    if not files:
        return size_of_folder(config.path, config.follow_links)
    rows = sum(RowFile(file).num_rows for file in files)
    return SourceSize(rows, "images", sum(file.stat().st_size for file in files))


def find_row_files(config: HuggingfaceConfig) -> list[Path]:
    """Lists the parquet or Arrow files that contain images; none if the dataset is an imagefolder.

    Raises:
        UserError: the folder does not exist, or has no file of the split.
    """
    if not config.path.exists():
        raise UserError(f"{config.path} does not exist; name a dataset's folder, or a parquet file.")
    if config.path.is_file():
        return [config.path]
    files = [path for path in find_files(config.path, "*.parquet") if path.name != "metadata.parquet"]
    files = files or [path for path in find_files(config.path, "*.arrow") if not path.name.startswith(_NOT_ROWS)]
    return of_split(config.path, files, config.split, "file")


def _plan(
    collection: Collection, config: HuggingfaceConfig, left_out: Counter[str] | None = None
) -> tuple[SourceRecipes, ReadPart]:
    """Returns the recipes of the parts, and a function that reads their images."""
    if files := find_row_files(config):
        plan = parquet.plan_parts(files, config.part_rows, config.limit)
        root = _root(config)
        reader = parquet.part_reader(root, plan, config.image_column, _captions(config))
        return parquet.recipes(collection, _STAGE, config, root, plan), reader
    folder = _read_imagefolder(config, left_out)
    part_recipe = part_recipes(collection, _STAGE, config, folder.files, config.part_rows)
    return part_recipe, part_reader(folder.files, config.part_rows, folder.metadata_of)


def _read_imagefolder(config: HuggingfaceConfig, left_out: Counter[str] | None) -> ImageFolder:
    folder = read_imagefolder(config.path, _captions(config), left_out, config.follow_links)
    chosen = set(of_split(config.path, [file.path for file in folder.files], config.split, "image"))
    return ImageFolder([file for file in folder.files if file.path in chosen][: config.limit], folder.metadata_of)


def _unread_tables(config: HuggingfaceConfig) -> str | None:
    return None if config.caption_kind == "none" else unread_tables(config.path)


def _captions(config: HuggingfaceConfig) -> CaptionRules:
    return CaptionRules(CaptionKind(config.caption_kind), config.keep_empty, config.caption_column)


def _root(config: HuggingfaceConfig) -> Path:
    return config.path if config.path.is_dir() else config.path.parent


KIND = SourceKind(
    name="huggingface",
    help="Bring in a Hugging Face dataset: parquet files with images in them, or an imagefolder.",
    config=HuggingfaceConfig,
    recipes=recipes,
    ingest=ingest_huggingface,
    measure=measure,
)
