"""webdataset shards: tar files of images with their captions and facts, as img2dataset and others write them.

https://github.com/webdataset/webdataset (the format); https://github.com/rom1504/img2dataset (00000.tar, 00000.parquet
with a row for each address, also those that failed, and 00000_stats.json, which says that the shard is finished)
"""

import json
import os
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.image_types import DECODED_EXTENSIONS, UNSUPPORTED_EXTENSIONS
from dreamloom.base.pixels import ImageError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import StageConfig, Summary, recipe
from dreamloom.scrape.collection import CaptionKind, Collection, Status, key_of
from dreamloom.scrape.datasets.ingest import VERSION, MissingImage, SourceImage, UserPath, file_version, ingest
from dreamloom.scrape.datasets.metadata import ImageMetadata, metadata_from_row, said
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize, size_of_files
from dreamloom.scrape.index.columns import match_columns


class WebdatasetConfig(StageConfig):
    """Shards of a webdataset. Each shard becomes a part."""

    path: UserPath = Field(description="The folder of the shards (00000.tar, …), or one shard.")
    captions: Literal["alt", "human", "model", "none"] = Field(
        "alt",
        description="Who wrote the captions: alt, web pages (LAION and its like); human, people, for these images; "
        "model, a captioning model; none: they are left out.",
    )


def recipes(collection: Collection, config: WebdatasetConfig) -> dict[str, str]:
    """Part → recipe; a part is named as its shard. Writes nothing.

    Raises:
        UserError: there is no shard, or img2dataset has not finished one.
    """
    return {
        shard.stem: recipe("ingest webdataset", VERSION, config, [file_version(shard, _table_of(shard))])
        for shard in find_shards(config)
    }


def ingest_webdataset(
    collection: Collection, config: WebdatasetConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records the images of all shards, and the rows of img2dataset's that have none; see scrape.datasets.ingest.

    Of a shard that breaks off, what is whole is taken, and a row says that it breaks off.

    Raises:
        UserError: there is no shard, or img2dataset has not finished one.
    """
    shards = {shard.stem: shard for shard in find_shards(config)}

    def items(part: str) -> tuple[int, list[SourceImage]]:
        shard, broken = shards[part], list[str]()
        dataset, kind = shard.resolve().parent.name, CaptionKind(config.captions)
        found = [
            sample_image(sample, key_of("webdataset", dataset, part, sample.key), kind)
            for sample in read_shard(shard, broken.append)
        ]
        for number, why in enumerate(broken):
            key = key_of("webdataset", dataset, part, "what is broken", str(number))
            found.append(SourceImage(key, str(shard.absolute()), MissingImage(Status.TRUNCATED, why), ImageMetadata()))
        return len(found), found

    return ingest(collection, config, recipes(collection, config), items, progress, parts)


# One shard


@dataclass(frozen=True)
class Sample:
    """What a shard has of one image."""

    key: str
    shard: Path
    metadata: Mapping[str, Any]
    """Its row of the shard's table, or its .json: url, caption, status, error_message, sha256, …"""
    members: Mapping[str, tuple[int, int]]
    """What follows the first dot of its members' names ("jpg", "txt", …) → first byte in the shard, and how many."""

    def read(self, extension: str) -> bytes:
        """The bytes of a member.

        Raises:
            ImageError: the shard ends before them.
        """
        start, size = self.members[extension]
        with self.shard.open("rb") as stream:
            data = os.pread(stream.fileno(), size, start)
        if len(data) < size:
            raise ImageError("truncated", "the shard ends within it")
        return data

    @property
    def image_extension(self) -> str | None:
        """The extension of its image, preferably one that is decoded; None where it has none."""
        for extensions in (DECODED_EXTENSIONS, UNSUPPORTED_EXTENSIONS):
            if found := next((extension for extension in self.members if f".{extension}" in extensions), None):
                return found
        return None


def read_shard(shard: Path, broken: Callable[[str], None]) -> list[Sample]:
    """The samples of a shard by key: those of its table, if img2dataset made one, and those in the tar.

    Args:
        broken: is told what of it can't be read; what can be is taken.
    """
    members = _members(shard, broken)
    rows = _rows(shard, broken)
    if rows is None:
        return [Sample(key, shard, _json_of(Sample(key, shard, {}, own)), own) for key, own in sorted(members.items())]
    return [Sample(key, shard, rows.get(key, {}), members.get(key, {})) for key in sorted({*rows, *members})]


def sample_image(sample: Sample, key: str, kind: CaptionKind) -> SourceImage:
    """A sample as what is recorded; a row that img2dataset could not fetch has no image, and says why.

    Args:
        key: the key of its record.
        kind: who wrote the captions; NONE: they are left out.
    """
    row = dict(sample.metadata)
    if "text" not in match_columns(row):
        row["text"] = _member(sample, "txt").decode("utf-8", "replace")
    facts = replace(
        metadata_from_row(row, kind),
        sha256=said(row.get("sha256")),
        original_width=_whole(row.get("original_width")),
        original_height=_whole(row.get("original_height")),
    )
    picture = sample.image_extension
    where = f"{sample.shard.absolute()}/{sample.key}"
    if picture is not None:
        return SourceImage(key, f"{where}.{picture}", partial(sample.read, picture), facts)
    return SourceImage(key, where, _gone(sample.metadata), facts)


def find_shards(config: WebdatasetConfig) -> list[Path]:
    """The shards, by name.

    Raises:
        UserError: there is none, or img2dataset has not finished one.
    """
    path = config.path
    shards = sorted(path.glob("*.tar")) if path.is_dir() else [path] if path.suffix == ".tar" and path.is_file() else []
    if not shards:
        raise UserError(f"{path} is no shard and holds none (00000.tar, …); name the folder of a webdataset.")
    by_img2dataset = any(path.parent.glob("*_stats.json") if path.is_file() else path.glob("*_stats.json"))
    for shard in shards:
        if by_img2dataset and not shard.with_name(f"{shard.stem}_stats.json").is_file():
            raise UserError(
                f"{shard} is not finished, as {shard.stem}_stats.json is not there; run img2dataset again, which "
                "finishes it, or take the shard away."
            )
    return shards


def _table_of(shard: Path) -> Path:
    return shard.with_suffix(".parquet")


def _members(shard: Path, broken: Callable[[str], None]) -> dict[str, dict[str, tuple[int, int]]]:
    """Key → extension → place. The key is a name up to the first dot behind its last slash, as webdataset has it."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        size = shard.stat().st_size
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, slash, name = member.name.rpartition("/")
                stem, dot, extension = name.partition(".")
                if member.isreg() and stem and dot and member.offset_data + member.size <= size:
                    place = (member.offset_data, member.size)
                    found.setdefault(f"{folder}{slash}{stem}", {})[extension.lower()] = place
            if _block(shard, archive.offset).strip(b"\0"):  # tarfile takes a damaged header for the end
                raise tarfile.ReadError(f"damaged at byte {archive.offset}")
    except (OSError, tarfile.TarError) as error:
        broken(f"{shard} can't be read as a tar ({error}); make it again, or take it away.")
    return found


def _rows(shard: Path, broken: Callable[[str], None]) -> dict[str, dict[str, Any]] | None:
    """Key → row of the table beside a shard; None where there is none."""
    table = _table_of(shard)
    if not table.is_file():
        return None
    try:
        return {row["key"]: row for row in pq.read_table(table, partitioning=None).to_pylist()}
    except (OSError, pa.ArrowException, KeyError) as error:
        broken(f"{table} is no table of img2dataset's ({error}); take it or its shard away.")
        return None


def _block(shard: Path, place: int) -> bytes:
    with shard.open("rb") as stream:
        return os.pread(stream.fileno(), tarfile.BLOCKSIZE, place)


def _json_of(sample: Sample) -> dict[str, Any]:
    try:
        facts = json.loads(_member(sample, "json"))
    except ValueError:
        return {}  # facts that can't be read are no reason to lose the image
    return facts if isinstance(facts, dict) else {}


def _member(sample: Sample, extension: str) -> bytes:
    """The bytes of a member; none where it is not there."""
    try:
        return sample.read(extension) if extension in sample.members else b""
    except ImageError:
        return b""


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


# What img2dataset says of a row that failed


def status_from_message(error_message: str, resized: bool = False) -> Status:
    """A status for what img2dataset 1.47 (and urllib and OpenCV, whose messages it hands on) says of a failure.

    Args:
        resized: whether it failed when it was decoded and resized, and not when it was fetched.
    """
    for pattern, status in _SAYS.items():
        if re.search(pattern, error_message):
            return status
    if code := re.match(r"HTTP Error (\d)(\d\d)", error_message):
        return _HTTP.get(code[1] + code[2]) or _HTTP.get(code[1], Status.CONNECTION)
    return Status.NOT_AN_IMAGE if resized else Status.CONNECTION


_HTTP = {
    "403": Status.HTTP_403,
    "404": Status.HTTP_404,
    "410": Status.HTTP_410,
    "429": Status.HTTP_429,
    "3": Status.TOO_MANY_REDIRECTS,
    "4": Status.HTTP_4XX,
    "5": Status.HTTP_5XX,
}

_SAYS = {  # the messages with an address in them first: it may hold any of the others' words
    r"urlopen error unknown url type|Redirection to url .* is not allowed": Status.BAD_SCHEME,
    "unknown url type|no host given|nonnumeric port|control characters|codec can't encode|Invalid IPv6|"
    "label (empty|too long)": Status.BAD_URL,
    "disallowed by X-Robots-Tag": Status.OPTED_OUT,
    "hash mismatch": Status.HASH_MISMATCH,
    "image too small": Status.TOO_SMALL,
    "aspect ratio too large": Status.BAD_ASPECT,
    "image area too large|CV_IO_MAX_IMAGE": Status.TOO_MANY_PIXELS,
    r"!buf\.empty\(\)": Status.EMPTY,
    r"Errno -3\b": Status.DNS_TEMPORARY,
    r"Errno -[25]\b": Status.DNS_UNKNOWN,
    "timed out": Status.TIMEOUT,
    r"\[SSL|certificate": Status.TLS,
    "IncompleteRead": Status.SHORT_BODY,
}


def _gone(row: Mapping[str, Any]) -> MissingImage:
    if row.get("status") in (None, "success"):
        return MissingImage(Status.MISSING_FILE, "the shard has no image for it")
    said = str(row.get("error_message") or row["status"])
    return MissingImage(status_from_message(said, row["status"] == "failed_to_resize"), " ".join(said.split())[:200])


def measure(config: WebdatasetConfig) -> SourceSize:
    """Counts the shards.

    Raises:
        UserError: there is no shard, or img2dataset has not finished one.
    """
    return size_of_files(find_shards(config), "shards")


KIND = SourceKind(
    name="webdataset",
    help="Bring in the shards of a webdataset, such as those of img2dataset.",
    config=WebdatasetConfig,
    recipes=recipes,
    ingest=ingest_webdataset,
    measure=measure,
)
