"""webdataset shards: tar files of images with their captions and metadata, as img2dataset and others write them.

https://github.com/webdataset/webdataset (the format); https://github.com/rom1504/img2dataset (00000.tar; 00000.parquet
with a row for each URL, also those that failed; and 00000_stats.json, which shows that the shard is finished)
"""

import logging
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.files.image_types import DECODED_EXTENSIONS, UNSUPPORTED_EXTENSIONS, is_image_name
from dreamloom.base.files.listing import is_left_out
from dreamloom.base.files.remote import address_of
from dreamloom.base.images.pixels import ImageError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PathKind, Summary
from dreamloom.base.tables.documents import MAX_BYTES, DocumentError
from dreamloom.base.tables.shard_captions import TEXTS, sample_captions, sample_metadata, why_no_caption
from dreamloom.base.tables.shard_keys import Place, group_samples, list_files
from dreamloom.base.tables.tables import caption_columns, captions_in_row, cell
from dreamloom.scrape.collection import CaptionKind, Collection, Status, Table, key_of
from dreamloom.scrape.datasets.fields import CaptionColumn, KeepEmpty, SourceConfig, UserPath, WhoseCaptions
from dreamloom.scrape.datasets.img2dataset_errors import why_no_image
from dreamloom.scrape.datasets.ingest import MissingImage, SourceImage, ingest
from dreamloom.scrape.datasets.metadata import (
    CaptionRules,
    ImageMetadata,
    clean_text,
    is_blank_text,
    metadata_from_row,
    pixels_or_none,
)
from dreamloom.scrape.datasets.shard_files import (
    Shard,
    list_shards,
    open_shard,
    read_member,
    read_table_of,
    shard_version,
    size_of_shards,
    unread_shards,
)
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize
from dreamloom.scrape.datasets.source_recipes import SourceRecipes

_log = logging.getLogger(__name__)


class WebdatasetConfig(SourceConfig):
    """Shards of a webdataset. Each shard becomes a part."""

    path: Annotated[UserPath, PathKind.ADDRESS] = Field(
        description="The folder of the shards (00000.tar, …), or one shard; on this machine or in a store "
        "(s3://bucket/set)."
    )
    caption_column: CaptionColumn = None
    caption_kind: WhoseCaptions = "alt"
    keep_empty: KeepEmpty = False


def recipes(collection: Collection, config: WebdatasetConfig) -> SourceRecipes:
    """Returns part → recipe; a part is named like its shard. Writes nothing.

    Raises:
        UserError: there is no shard, or img2dataset has not finished one.
    """
    made_from = {
        PurePath(shard).stem: [shard_version(shard, before=f"{_dataset(shard)} ")] for shard in list_shards(config.path)
    }
    return SourceRecipes(collection, Table.RECORDS, "ingest webdataset", config, made_from)


def ingest_webdataset(
    collection: Collection, config: WebdatasetConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records the images of all shards, and img2dataset's rows without an image; see dreamloom.scrape.datasets.ingest.

    From a truncated shard all whole images are taken, and a row says that it is truncated.

    Raises:
        UserError: there is no shard, or img2dataset has not finished one.
    """
    shards = {PurePath(shard).stem: shard for shard in list_shards(config.path)}
    if not address_of(config.path) and (unread := unread_shards(config.path)):
        _log.warning("%s", unread)

    def read_part(part: str) -> tuple[int, list[SourceImage]]:
        shard, damage = shards[part], list[str]()
        dataset = _dataset(shard)
        captions = CaptionRules(CaptionKind(config.caption_kind), config.keep_empty, config.caption_column)
        samples = read_shard(shard, damage.append)
        images = [sample_image(sample, key_of("webdataset", dataset, part, sample.key), captions) for sample in samples]
        if captions.kind is not CaptionKind.NONE:
            _tell_unread_captions(samples, images)
        for number, message in enumerate(damage):
            key = key_of("webdataset", dataset, part, "what is broken", str(number))
            missing = MissingImage(Status.TRUNCATED, message)
            images.append(SourceImage(key, _place(shard), missing, ImageMetadata()))
        return len(images), images

    return ingest(collection, config, recipes(collection, config), read_part, progress, parts)


def _dataset(shard: Shard) -> str:
    """Returns the name of a shard's dataset, of which keys are made: its folder's, so that it may be moved."""
    return (PurePath(shard) if isinstance(shard, str) else shard.resolve()).parent.name


def _place(shard: Shard) -> str:
    return shard if isinstance(shard, str) else str(shard.absolute())


def measure(config: WebdatasetConfig) -> SourceSize:
    """Counts the shards.

    Raises:
        UserError: there is no shard, or img2dataset has not finished one.
    """
    return size_of_shards(config.path)


# One shard


Members = dict[str, dict[str, tuple[int, int]]]
"""Key → extension → first byte in the shard, and size."""


@dataclass(frozen=True)
class Sample:
    """What a shard holds of one image."""

    key: str
    shard: Shard
    metadata: Mapping[str, Any]
    """Its row of the shard's table, or its .json: url, caption, status, error_message, sha256, …"""
    members: Mapping[str, tuple[int, int]]
    """What follows the first dot of its members' names ("jpg", "txt", …) → first byte in the shard, and size."""

    def read(self, extension: str) -> bytes:
        """Reads the bytes of a member.

        Raises:
            ImageError: the shard ends before them.
        """
        start, size = self.members[extension]
        data = read_member(self.shard, start, size)
        if len(data) < size:
            raise ImageError("truncated", "the shard ends within it")
        return data

    @property
    def image_extension(self) -> str | None:
        """The extension of its image, preferably one that is decoded; None: it has no image."""
        for extensions in (DECODED_EXTENSIONS, UNSUPPORTED_EXTENSIONS):
            if match := next((extension for extension in self.members if f".{extension}" in extensions), None):
                return match
        return None


def read_shard(shard: Shard, on_damage: Callable[[str], None]) -> list[Sample]:
    """Reads the samples of a shard, by key: those in its table, if img2dataset wrote one, and those in the tar.

    Args:
        shard: the tar file, or its address.
        on_damage: called with what can't be read; the rest is read.
    """
    members = _read_members(shard, on_damage)
    rows = _read_table(shard, on_damage)
    if rows is None:
        return [
            Sample(key, shard, _read_json(Sample(key, shard, {}, own)), own) for key, own in sorted(members.items())
        ]
    return [Sample(key, shard, rows.get(key, {}), members.get(key, {})) for key in sorted({*rows, *members})]


def sample_image(sample: Sample, key: str, captions: CaptionRules) -> SourceImage:
    """Converts a sample into an image to record; a row that img2dataset could not download has no image.

    Args:
        sample: the sample.
        key: the key of its record.
        captions: which captions are taken.
    """
    row = sample.metadata
    caption = None
    if captions.kind is not CaptionKind.NONE:
        caption = clean_text(read_sample_caption(sample, captions.column))
    text, text_kind = captions.apply(caption, not caption and _has_blank_caption(sample, captions.column))
    metadata = replace(
        metadata_from_row(row, CaptionRules(CaptionKind.NONE)),
        text=text,
        text_kind=text_kind,
        sha256=clean_text(row.get("sha256")),
        original_width=pixels_or_none(row.get("original_width")),
        original_height=pixels_or_none(row.get("original_height")),
    )
    extension = sample.image_extension
    place = f"{_place(sample.shard)}/{sample.key}"
    if extension is not None:
        return SourceImage(key, f"{place}.{extension}", partial(sample.read, extension), metadata)
    missing = MissingImage(*why_no_image(sample.metadata, "the shard has no picture for it"))
    return SourceImage(key, place, missing, metadata)


def read_sample_caption(sample: Sample, column: str | None = None) -> str | None:
    """Returns the caption of a sample; None: all are blank. See dreamloom.base.tables.shard_captions."""
    try:
        found = sample_captions(sample.members, partial(_read_member, sample), sample.metadata, column)
        return next(iter(found or captions_in_row(_read_json(sample), column)), None)
    except DocumentError:
        return None


def _tell_unread_captions(samples: Sequence[Sample], images: Sequence[SourceImage]) -> None:
    """Logs how many images have no caption, where something that is not read may hold it."""
    bare = [s for s, image in zip(samples, images, strict=True) if image.metadata.text is None and s.image_extension]
    reasons = [(s.key, why_no_caption(_texts(s), partial(_read_member, s), s.metadata)) for s in bare]
    told = [(key, why) for key, why in reasons if why is not None]
    if told:
        key, why = told[0]
        _log.warning("%s: %d images have no caption; of %s, %s.", bare[0].shard, len(told), key, why)


def _texts(sample: Sample) -> list[str]:
    """Returns the extensions of the members that are no images."""
    return [name for name in sample.members if not is_image_name(f"x.{name}")]


def _has_blank_caption(sample: Sample, column: str | None) -> bool:
    names = [column] if column else caption_columns(sample.metadata)
    cells = (cell(sample.metadata, name) for name in names)
    return any(extension in sample.members for extension in TEXTS) or any(map(is_blank_text, cells))


def _read_members(shard: Shard, on_damage: Callable[[str], None]) -> Members:
    """Returns key → extension → place."""
    files: dict[str, Place] = {}
    try:
        with open_shard(shard) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            size = os.fstat(stream.fileno()).st_size
            for name, place in list_files(archive):
                if place[1] >= 0 and sum(place) <= size and not is_left_out(name):
                    files[name] = place
            block = os.pread(stream.fileno(), tarfile.BLOCKSIZE, archive.offset)
            if block.strip(b"\0"):  # tarfile mistakes a damaged header for the end
                raise tarfile.ReadError(f"damaged at byte {archive.offset}")
    except (OSError, tarfile.TarError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's own: another time it may be read
            raise UserError(f"{shard} can't be read ({error.strerror}); change its permissions, or move it.") from error
        on_damage(f"{shard} can't be read as a tar ({error}); make it again, or take it away.")
    return group_samples(files)


def _read_table(shard: Shard, on_damage: Callable[[str], None]) -> dict[str, dict[str, Any]] | None:
    """Returns key → row of the table beside a shard; None: there is no table."""
    try:
        found = read_table_of(shard)
    except (OSError, DocumentError) as error:
        on_damage(f"The table of {shard} is none of img2dataset's ({error}); take it or its shard away.")
        return None
    if found is None:
        return None
    table, rows = found
    by_key = {row.cells["key"]: dict(row.cells) for row in rows if isinstance(row.cells.get("key"), str)}
    if rows and not by_key:
        on_damage(f"{table} is no table of img2dataset's (it lacks 'key'); take it or its shard away.")
        return None
    for row in rows:
        if row.fault:
            on_damage(f"{table}, row {row.number}: can't be read ({row.fault}); correct it.")
    return by_key


def _read_json(sample: Sample) -> dict[str, Any]:
    try:
        return sample_metadata(sample.members, partial(_read_member, sample))
    except DocumentError:
        return {}  # metadata that can't be read is no reason to lose the image


def _read_member(sample: Sample, extension: str) -> bytes:
    """Reads the bytes of a member beside the image; empty if it does not exist, is truncated or too long."""
    if extension not in sample.members or sample.members[extension][1] > MAX_BYTES:
        return b""
    try:
        return sample.read(extension)
    except ImageError:
        return b""


KIND = SourceKind(
    name="webdataset",
    help="Bring in the shards of a webdataset, such as those of img2dataset.",
    config=WebdatasetConfig,
    recipes=recipes,
    ingest=ingest_webdataset,
    measure=measure,
)
