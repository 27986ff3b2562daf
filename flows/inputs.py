"""What a source has to give, before it is taken in: images or rows, and bytes."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from dreamloom.flows.project import AnySource, CocoSource, HuggingfaceSource, LaionSource, WebdatasetSource
from dreamloom.scrape.datasets.coco import find_photos
from dreamloom.scrape.datasets.huggingface import find_parquet_files
from dreamloom.scrape.datasets.ingest import find_images
from dreamloom.scrape.datasets.webdataset import find_shards
from dreamloom.scrape.index.files import find_index_files


@dataclass(frozen=True)
class Input:
    """What a source has to give."""

    count: int
    unit: str
    """images, rows of an index, shards, …"""
    size: int
    """Bytes of its files."""


def input_of(source: AnySource) -> Input:
    """Counts a source's files, by names and footers alone.

    Raises:
        UserError: it has none.
    """
    if isinstance(source, LaionSource):
        index = find_index_files(source.index)
        return Input(sum(f.metadata().num_rows for f in index), "rows", sum(f.size() for f in index))
    if isinstance(source, WebdatasetSource):
        shards = find_shards(source)
        return Input(len(shards), "shards", _size(shards))
    if isinstance(source, HuggingfaceSource) and (files := find_parquet_files(source)):
        return Input(sum(pq.read_metadata(file).num_rows for file in files), "images", _size(files))
    if isinstance(source, CocoSource):
        photos = find_photos(source)
        if source.images is None:
            return Input(len(photos), "photos to download", 0)
        files = [photo.path for photo in photos if photo.exists]
    else:
        files = [path for path, _ in find_images(source.path)]
    return Input(len(files), "images", _size(files))


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)
