"""Finds the files of an index: paths, folders and globs, local or on a file system of fsspec (s3://, hf://)."""

import glob
import gzip
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files.file_index import WholeFile, content_hashes
from dreamloom.base.files.listing import is_left_out, may_be_read
from dreamloom.base.files.remote import is_remote, remote_errors, version_of
from dreamloom.base.text import brief, is_utf8

_LIST_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
LIST_SUFFIXES = (*_LIST_TABLES, ".txt", ".json")
"""Files of an index that are lists of addresses, also with .gz behind; all others are parquet."""


@dataclass(frozen=True)
class IndexFile:
    """A parquet file, or a list of addresses. Creating the object reads nothing."""

    name: str
    """An absolute path, or a URL with its protocol."""
    filesystem: Any = None
    """The fsspec file system that it is on; None: it is local."""

    listed_as: str = ""
    """The user's file that this one stands for; empty: it is the user's own."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason → rows of the user's file that this one is without."""

    def __str__(self) -> str:
        """Returns the name that the user knows."""
        return self.listed_as or self.name

    @property
    def is_list(self) -> bool:
        """Whether it is a list of addresses."""
        return self.suffix in LIST_SUFFIXES

    @property
    def suffix(self) -> str:
        """Its extension in lower case, without .gz."""
        return posixpath.splitext(self.name.lower().removesuffix(".gz"))[1]

    def open(self) -> Any:
        """Opens it for reading bytes, as they are unpacked."""
        is_packed = self.name.lower().endswith(".gz")
        if self.filesystem is not None:
            return self.filesystem.open(self.name, "rb", compression="gzip" if is_packed else None)
        return gzip.open(self.name, "rb") if is_packed else open(self.name, "rb")

    def count_rows(self) -> int:
        """Counts its rows: by the footer, the lines of a list, or the ends of objects in a .json."""
        if not self.is_list:
            return int(self.metadata().num_rows)
        with self.open() as stream:
            end = b"}" if self.suffix == ".json" else b"\n"
            return sum(chunk.count(end) for chunk in iter(lambda: stream.read(2**20), b""))

    def metadata(self) -> pq.FileMetaData:
        """Reads its footer."""
        if self.filesystem is None:
            return pq.read_metadata(self.name)
        with self.filesystem.open(self.name, "rb") as stream:
            return pq.read_metadata(stream)

    def size(self) -> int:
        """Returns its size in bytes."""
        return int(self.filesystem.size(self.name)) if self.filesystem else Path(self.name).stat().st_size


def fingerprints(files: Sequence[IndexFile]) -> list[str]:
    """Identifies the content of each file: by its bytes, or by what a remote file system tells about it."""
    local = [WholeFile(Path(file.name)) for file in files if file.filesystem is None]
    hashes = iter(content_hashes(local, algorithm="xxh3"))
    return [str(next(hashes)) if file.filesystem is None else _version(file) for file in files]


def _version(file: IndexFile) -> str:
    info = file.filesystem.info(file.name)
    return f"{file.name} {info.get('size')} {version_of(info)}"


def find_index_files(patterns: Iterable[str]) -> list[IndexFile]:
    """Finds the files of an index: patterns in the given order, the matches of each by name, none twice.

    Raises:
        UserError: a pattern matches nothing or a name that is not UTF-8, or its file system can't be reached.
    """
    files: dict[str, IndexFile] = {}
    for pattern in patterns:
        matches = _find_remote(pattern) if is_remote(pattern) else _find_local(pattern)
        if not matches:
            raise UserError(f"No parquet file is at {pattern}; `index` takes files, folders and globs.")
        for match in matches:
            if not is_utf8(match.name):
                raise UserError(f"{match} has a name that is not UTF-8; rename it.")
            files.setdefault(match.name, match)
    if not files:
        raise UserError("`index` is empty; name the parquet files of a LAION-style index there.")
    return list(files.values())


def _find_local(pattern: str) -> list[IndexFile]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        matches = _find_in_folder(path)
    elif path.is_file():
        matches = [path]
    else:
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        matches = list(filter(may_be_read, matches))
    return [IndexFile(str(match.resolve())) for match in matches if not _is_leaving(match, path)]


def _find_in_folder(folder: Path) -> list[Path]:
    """Returns the parquet files of a folder; where there is none, its tables of addresses; else its texts."""
    files = sorted(filter(may_be_read, folder.iterdir()))
    for suffixes in ((".parquet",), _LIST_TABLES, (".txt",)):
        if found := [file for file in files if IndexFile(str(file)).suffix in suffixes]:
            return found
    return []


def _is_leaving(match: Path, pattern: Path) -> bool:
    """Whether a system left the file there (._00000.parquet, @eaDir/…), and the pattern does not name it."""
    return any(is_left_out(name) for name in match.parts if name not in pattern.parts)


def _find_remote(pattern: str) -> list[IndexFile]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(pattern)
        filesystem.invalidate_cache()
        if filesystem.isdir(path):
            names = sorted(filesystem.glob(posixpath.join(glob.escape(path), "*.parquet")))
        else:
            names = [path] if filesystem.isfile(path) else sorted(filesystem.glob(path))
    except remote_errors() as error:
        why = brief(error)
        raise UserError(f"{pattern} can't be reached ({why}); check its address and your access to it.") from error
    _provide_dates(filesystem)
    own = [name for name in names if not posixpath.basename(name).startswith("._")]
    return [IndexFile(filesystem.unstrip_protocol(name), filesystem) for name in own]


def _provide_dates(filesystem: Any) -> None:
    """DuckDB asks when each file was modified, which the Hub's file system does not know; any date will do."""

    def modified(path: str) -> datetime:
        try:
            return cast(datetime, type(filesystem).modified(filesystem, path))
        except NotImplementedError:
            return datetime.fromtimestamp(0, UTC)

    filesystem.modified = modified
