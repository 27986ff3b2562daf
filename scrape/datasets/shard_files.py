"""Which shards a webdataset has on this machine, and which it has that can't be read."""

from fnmatch import fnmatchcase
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.scrape.datasets.image_files import find_files

_COMPRESSED = ("*.tar.*", "*.tgz", "*.tbz2", "*.txz")


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


def unread_shards(path: Path) -> str:
    """Returns a sentence about shards that are compressed or lie in folders below; empty: there are none."""
    files = find_files(path, "*.tar", *_COMPRESSED) if path.is_dir() else [path]
    told = []
    if compressed := [file for file in files if any(fnmatchcase(file.name.lower(), each) for each in _COMPRESSED)]:
        told.append(f"Compressed shards are not read: {compressed[0]} and {len(compressed) - 1} more; unpack them.")
    if below := [file for file in files if file not in compressed and path not in (file, file.parent)]:
        told.append(f"Shards in folders below are not read: {below[0]} and {len(below) - 1} more; name their folder.")
    return " ".join(told)
