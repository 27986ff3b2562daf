"""Which shards a webdataset has, on this machine or at an address, and which it has that can't be read."""

import os
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from tempfile import NamedTemporaryFile
from typing import BinaryIO

from dreamloom.base.errors import UserError
from dreamloom.base.files.listing import is_left_out
from dreamloom.base.files.remote import address_of
from dreamloom.base.files.remote_files import SHARD_CACHE_GB, is_known, list_files, read_range, state_of, whole_file
from dreamloom.base.tables.tables import TableRow, read_table
from dreamloom.scrape.datasets.image_files import find_files
from dreamloom.scrape.datasets.source_kind import SourceSize, size_of_files
from dreamloom.scrape.datasets.source_recipes import FileVersion, file_version

Shard = Path | str
"""A shard on this machine, or the address of one (s3://bucket/set/00000.tar)."""

_COMPRESSED = ("*.tar.*", "*.tgz", "*.tbz2", "*.txz")


def list_shards(path: Path) -> list[Shard]:
    """Lists the shards of a folder or an address.

    Raises:
        UserError: as `find_shards` and `find_shards_at`.
    """
    address = address_of(path)
    return [*find_shards_at(address)] if address else [*find_shards(path)]


def find_shards(path: Path) -> list[Path]:
    """Lists the shards of a folder, without those in folders below, by name; or the one that a path names.

    Raises:
        UserError: there is none, or img2dataset has not finished one.
    """
    if path.is_dir():
        shards = [file for file in find_files(path, "*.tar") if file.parent == path]
    else:
        shards = [path] if path.suffix.lower() == ".tar" and path.is_file() else []
    if not shards:
        raise UserError(
            f"{path} is not a shard and holds none (00000.tar, …); name the folder of a webdataset."
            f" {unread_shards(path)}".rstrip()
        )
    by_img2dataset = any(path.parent.glob("*_stats.json") if path.is_file() else path.glob("*_stats.json"))
    for shard in shards:
        if by_img2dataset and not shard.with_name(f"{shard.stem}_stats.json").is_file():
            raise UserError(
                f"{shard} is not finished, as {shard.stem}_stats.json does not exist; run img2dataset again, which "
                "finishes it, or move the shard away."
            )
    return shards


def find_shards_at(address: str) -> list[str]:
    """Lists the shards at an address (s3://bucket/set), without those below, by name; or the one that it names.

    Raises:
        UserError: it can't be listed, there is none, or img2dataset has not finished one.
    """
    names = [name for name in list_files(address) if not is_left_out(name)]
    shards = [name for name in names if name.lower().endswith(".tar") and "/" not in name]
    if not shards:
        below = sum(name.lower().endswith(".tar") for name in names)
        raise UserError(f"{address} is not a shard and holds none (00000.tar, …; {below} in folders below); name them.")
    finished = {name.removesuffix("_stats.json") for name in names if name.endswith("_stats.json")}
    if finished and (unfinished := [name for name in shards if name[: -len(".tar")] not in finished]):
        raise UserError(
            f"{address}/{unfinished[0]} is not finished, as its _stats.json does not exist; run img2dataset again, "
            "which finishes it, or move the shard away."
        )
    return [address] if names == shards == [address.rsplit("/", 1)[1]] else [f"{address}/{name}" for name in shards]


def open_shard(shard: Shard) -> AbstractContextManager[BinaryIO]:
    """Opens a shard; one at an address comes into the cache of shards (dreamloom.base.files.remote_files).

    Raises:
        UserError: an address can't be read.
    """
    return whole_file(shard, SHARD_CACHE_GB) if isinstance(shard, str) else shard.open("rb")


def read_member(shard: Shard, start: int, size: int) -> bytes:
    """Reads bytes of a shard, fewer where it ends before.

    Raises:
        UserError: an address can't be read.
    """
    if isinstance(shard, str):
        return read_range(shard, start, size)
    with shard.open("rb") as stream:
        return os.pread(stream.fileno(), size, start)


def shard_version(shard: Shard, before: str) -> FileVersion:
    """Returns the version of a shard and of the table beside it (see `file_version`).

    Raises:
        UserError: an address can't be read.
    """
    if isinstance(shard, Path):
        return file_version(shard, shard.with_suffix(".parquet"), before=before)
    files = filter(is_known, (shard, _table_address(shard)))
    states = [f"{PurePath(file).name} {' '.join(map(str, state_of(file)))}" for file in files]
    return FileVersion((), "", before + "|".join(states))


def read_table_of(shard: Shard) -> tuple[Shard, list[TableRow]] | None:
    """Reads the table that img2dataset wrote beside a shard; None where there is none.

    Raises:
        DocumentError: it can't be read.
        UserError: an address can't be read.
    """
    if isinstance(shard, Path):
        table = shard.with_suffix(".parquet")
        return (table, list(read_table(table))) if table.is_file() else None
    address = _table_address(shard)
    if not is_known(address):
        return None
    with NamedTemporaryFile(suffix=".parquet") as file:
        file.write(read_range(address))
        file.flush()
        return address, list(read_table(Path(file.name)))


def _table_address(shard: str) -> str:
    return f"{shard[: -len('.tar')]}.parquet"


def size_of_shards(path: Path) -> SourceSize:
    """Counts the shards of a folder or an address, and adds up their bytes.

    Raises:
        UserError: there is none, or img2dataset has not finished one.
    """
    shards = list_shards(path)
    remote = [state_of(shard).size for shard in shards if isinstance(shard, str)]
    if remote:
        return SourceSize(len(remote), "shards", sum(remote))
    return size_of_files([shard for shard in shards if isinstance(shard, Path)], "shards")


def unread_shards(path: Path) -> str:
    """Returns a sentence about shards that are compressed, TFRecords or in folders below; empty: there are none."""
    files = find_files(path, "*.tar", "*.tfrecord*", *_COMPRESSED) if path.is_dir() else [path]
    told = []
    if records := [file for file in files if ".tfrecord" in file.name.lower()]:
        told.append(
            f"TFRecords are not read: {records[0]} and {len(records) - 1} more; write webdataset (tar) or parquet "
            "instead, as img2dataset does with --output_format."
        )
        files = [file for file in files if file not in records]
    if compressed := [file for file in files if any(fnmatchcase(file.name.lower(), each) for each in _COMPRESSED)]:
        told.append(f"Compressed shards are not read: {compressed[0]} and {len(compressed) - 1} more; unpack them.")
    if below := [file for file in files if file not in compressed and path not in (file, file.parent)]:
        told.append(f"Shards in folders below are not read: {below[0]} and {len(below) - 1} more; name their folder.")
    return " ".join(told)
