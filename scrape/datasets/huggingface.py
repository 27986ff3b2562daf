"""Hugging Face datasets of images on this machine: parquet with the bytes in it, or an `imagefolder`.

https://huggingface.co/docs/datasets/image_dataset
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, StageConfig, Summary
from dreamloom.scrape.collection import CaptionKind, Collection
from dreamloom.scrape.datasets import imagefolder
from dreamloom.scrape.datasets import parquet as embedded
from dreamloom.scrape.datasets.ingest import ReadPart, UserPath, find_images, ingest, part_reader, part_recipes
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize, size_of_files

_STAGE = "ingest huggingface"


class HuggingfaceConfig(StageConfig):
    """A dataset's files, as `hf download` leaves them or as `imagefolder` reads them."""

    path: UserPath = Field(description="The dataset's folder, or one parquet file.")
    split: str | None = Field(None, description="Only files that are of it by name or folder (train, …); null: all.")
    image_column: str | None = Field(
        None, description="Column of images in parquet files; null: the one that holds image bytes."
    )
    caption_column: str | None = Field(None, description="Column of captions; null: text, caption, … if there is one.")
    captions: Literal["human", "alt", "model", "none"] = Field(
        "human",
        description="Who wrote the captions: human, people, for these images; alt, web pages; model, a captioning "
        "model; none: they are left out.",
    )
    limit: int | None = Field(None, ge=1, description="Take only so many rows, the first ones.")
    part_rows: int = Field(PART_ROWS, ge=1, description="Pictures a part: the unit of work and of resume.")


def recipes(collection: Collection, config: HuggingfaceConfig) -> dict[str, str]:
    """Part → recipe; writes nothing.

    Raises:
        UserError: there is no image, no such column, or a file can't be read.
    """
    return _planned(config)[0]


def ingest_huggingface(
    collection: Collection, config: HuggingfaceConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records the images of a dataset; see dreamloom.scrape.datasets.ingest.

    Raises:
        UserError: there is no image, no such column, or a file can't be read.
    """
    made_by, items = _planned(config)
    return ingest(collection, config, made_by, items, progress, parts)


def find_parquet_files(config: HuggingfaceConfig) -> list[Path]:
    """The files that hold images; none where it is an imagefolder.

    Raises:
        UserError: there is no such folder, or no file of the split.
    """
    if not config.path.exists():
        raise UserError(f"{config.path} is not there; name a dataset's folder, or a parquet file.")
    if config.path.is_file():
        return [config.path]
    named = {path: path.relative_to(config.path) for path in sorted(config.path.rglob("*.parquet"))}
    files = [p for p, n in named.items() if n.name != "metadata.parquet" and not any(f[0] == "." for f in n.parts)]
    chosen = [path for path in files if in_split(named[path], config.split)]
    if files and not chosen:
        raise UserError(f"{config.path} has no parquet file of the split {config.split}; it has {files[0].name}, ….")
    return chosen


def in_split(path: Path, split: str | None) -> bool:
    """Whether a file belongs to a split by its name or a folder's: train-00000-of-00002.parquet, data/train/0.jpg."""
    return split is None or split in re.split(r"[-_./]", path.as_posix())


def _planned(config: HuggingfaceConfig) -> tuple[dict[str, str], ReadPart]:
    """The recipes of the parts, and their images."""
    if files := find_parquet_files(config):
        plan = embedded.plan(files, config.part_rows, config.limit)
        columns = embedded.Columns(config.image_column, config.caption_column, CaptionKind(config.captions))
        return embedded.recipes(_STAGE, config, plan), embedded.part_reader(_root(config), plan, columns)
    found = _listed(config)
    made_by = part_recipes(_STAGE, config, found.listed, config.part_rows)
    return made_by, part_reader(found.listed, config.part_rows, found.facts)


def _listed(config: HuggingfaceConfig) -> imagefolder.ImageFolder:
    found = imagefolder.read_imagefolder(config.path, config.caption_column, CaptionKind(config.captions))
    chosen = [one for one in found.listed if in_split(one.path.relative_to(config.path), config.split)]
    if not chosen:
        raise UserError(f"{config.path} has no image of the split {config.split}; name one of its folders.")
    return imagefolder.ImageFolder(chosen[: config.limit], found.facts)


def _root(config: HuggingfaceConfig) -> Path:
    return config.path if config.path.is_dir() else config.path.parent


def measure(config: HuggingfaceConfig) -> SourceSize:
    """Counts the rows of the parquet files, or the images of the imagefolder.

    Raises:
        UserError: there is no image, or no file of the split.
    """
    files = find_parquet_files(config)
    if not files:
        return size_of_files(path for path, _ in find_images(config.path))
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    return SourceSize(rows, "images", sum(file.stat().st_size for file in files))


KIND = SourceKind(
    name="huggingface",
    help="Bring in a Hugging Face dataset: parquet files with images in them, or an imagefolder.",
    config=HuggingfaceConfig,
    recipes=recipes,
    ingest=ingest_huggingface,
    measure=measure,
)
