"""What a source has to give, before it is taken in: images or rows, and bytes."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from dreamloom.flows.project import AnySource, CocoSource, HuggingfaceSource, LaionSource, WebdatasetSource
from dreamloom.scrape.datasets.coco import photos_of
from dreamloom.scrape.datasets.huggingface import parquet_files
from dreamloom.scrape.datasets.ingest import is_there, pictures_in
from dreamloom.scrape.datasets.webdataset import shards_of
from dreamloom.scrape.index.files import index_files


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
        index = index_files(source.index)
        return Input(sum(f.metadata().num_rows for f in index), "rows", sum(f.size() for f in index))
    if isinstance(source, WebdatasetSource):
        shards = shards_of(source)
        return Input(len(shards), "shards", _size(shards))
    if isinstance(source, HuggingfaceSource) and (files := parquet_files(source)):
        return Input(sum(pq.read_metadata(file).num_rows for file in files), "images", _size(files))
    if isinstance(source, CocoSource):
        photos = photos_of(source)
        if source.images is None:
            return Input(len(photos), "photos to download", 0)
        files = [photo.path for photo in photos if is_there(photo)]
    else:
        files = [path for path, _ in pictures_in(source.path)]
    return Input(len(files), "images", _size(files))


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)
