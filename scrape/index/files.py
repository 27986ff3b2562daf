"""The files of an index: folders, globs and files, of this machine or of a store that fsspec knows (s3://, hf://)."""

import glob
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import fsspec
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files import fingerprint


@dataclass(frozen=True)
class IndexFile:
    """A parquet file; making the object touches nothing."""

    name: str
    """An absolute path, or an address with its protocol."""
    store: Any = None
    """The fsspec file system that it is on; None: this machine's own."""

    def __str__(self) -> str:
        return self.name

    def metadata(self) -> pq.FileMetaData:
        """Its footer."""
        if self.store is None:
            return pq.read_metadata(self.name)
        with self.store.open(self.name, "rb") as stream:
            return pq.read_metadata(stream)

    def size(self) -> int:
        """Bytes."""
        return int(self.store.size(self.name)) if self.store else Path(self.name).stat().st_size

    def fingerprint(self) -> str:
        """Names its content: by a sample of it, or, where that is far away, by what its store says of it."""
        if self.store is None:
            return fingerprint(self.name)
        known = self.store.info(self.name)
        return f"{self.name} {known.get('size')} {next((str(known[n]) for n in _VERSIONS if known.get(n)), '')}"


_VERSIONS = ("ETag", "etag", "blob_id", "md5", "LastModified", "mtime", "created")
"""What stores call that which changes with the content."""


def is_remote(pattern: str) -> bool:
    """Whether a pattern is an address and no path."""
    return "://" in pattern


def find_index_files(patterns: Iterable[str]) -> list[IndexFile]:
    """The files of an index: patterns in the order given, what each matches by name, none twice.

    Raises:
        UserError: one matches nothing, or its store can't be asked.
    """
    found: dict[str, IndexFile] = {}
    for pattern in patterns:
        matches = _far(pattern) if is_remote(pattern) else [IndexFile(str(path)) for path in _near(pattern)]
        if not matches:
            raise UserError(f"No parquet file is at {pattern}; `index` takes files, folders and globs.")
        for match in matches:
            found.setdefault(match.name, match)
    if not found:
        raise UserError("`index` is empty; name the parquet files of a LAION-style index there.")
    return list(found.values())


def _near(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        return [match.resolve() for match in sorted(path.glob("*.parquet"))]
    if path.is_file():
        return [path.resolve()]
    return [Path(match).resolve() for match in sorted(glob.glob(str(path), recursive=True))]


def _far(pattern: str) -> list[IndexFile]:
    try:
        store, path = fsspec.core.url_to_fs(pattern)
        store.invalidate_cache()
        if store.isdir(path):
            names = sorted(store.glob(posixpath.join(glob.escape(path), "*.parquet")))
        else:
            names = [path] if store.isfile(path) else sorted(store.glob(path))
    except _unreached() as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{pattern} can't be reached ({why}); see that address and access are right.") from error
    _date(store)
    return [IndexFile(store.unstrip_protocol(name), store) for name in names]


def _date(store: Any) -> None:
    """DuckDB asks of each file when it was changed, which the Hub's store does not know; any date will do."""

    def modified(path: str) -> datetime:
        try:
            return cast(datetime, type(store).modified(store, path))
        except NotImplementedError:
            return datetime.fromtimestamp(0, UTC)

    store.modified = modified


def _unreached() -> tuple[type[Exception], ...]:
    """What stores raise; s3fs lets some of its own library's through: no credentials, no connection."""
    from botocore.exceptions import BotoCoreError

    return OSError, ImportError, ValueError, BotoCoreError
