"""Addresses on the file systems that fsspec knows (s3://, gs://, hf://, …), with errors as sentences."""

import contextlib
import errno
import hashlib
import json
import logging
import posixpath
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from dreamloom.base.errors import UserError
from dreamloom.base.text import brief

_log = logging.getLogger(__name__)

PATIENCE_S = 120.0
"""How long a server that is overloaded or away is asked again."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 10.0
_CHUNK_BYTES, _FOOTER_BYTES = 2**22, 2**16
_FOLDED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")  # a drive of Windows has one letter
_PASSING = (errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EBUSY))
"""What s3fs makes of 503 and of 500."""

Result = TypeVar("Result")


def is_remote(address: str) -> bool:
    """Tells whether an address is a URL instead of a path."""
    return "://" in address


def address_of(path: Path | str) -> str | None:
    """Returns the URL that a path stands for, as pathlib makes s3:/bucket of s3://bucket; None: it is a path."""
    match = _FOLDED.match(str(path))
    if match is None:
        return None
    root = "/" if match[1] == "file" else ""  # file:///folder has no host
    return f"{match[1]}://{root}{str(path)[match.end() :].rstrip('/')}"


def remote_errors() -> tuple[type[Exception], ...]:
    """Returns what file systems raise; s3fs passes on some of its own library's: no credentials, no connection."""
    from botocore.exceptions import BotoCoreError, ClientError

    return OSError, ImportError, ValueError, BotoCoreError, ClientError


def reach(address: str, done: str, call: Callable[[], Result], patience_s: float | None = None) -> Result:
    """Calls what reads or writes at an address; where a server is overloaded or away, again for PATIENCE_S.

    Args:
        address: of what is read or written.
        done: what happens to it: "read", "written to".
        call: may be called more than once.
        patience_s: how long it is tried again; None: PATIENCE_S.

    Raises:
        UserError: it fails; at once, if it is not there, or access is denied.
    """
    end, wait = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s), _FIRST_WAIT_S
    while True:
        try:
            return call()
        except remote_errors() as error:
            why, left = brief(error) or type(error).__name__, end - time.monotonic()
            if not _may_pass(error) or left <= 0:
                raise UserError(
                    f"{address} can't be {done} ({why}); check its address and your access to it, and run again."
                ) from error
            _log.warning("%s can't be %s (%s); asked again for %.0f s", address, done, why, left)
        time.sleep(min(wait, left))
        wait = min(2 * wait, _LONGEST_WAIT_S)


def _may_pass(error: Exception) -> bool:
    """Whether an error may be gone in a minute."""
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError

    response = getattr(error.__cause__, "response", None) or {}  # botocore's, behind s3fs's own
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") or getattr(error, "code", None)  # gcsfs's
    if isinstance(status, int):
        return status >= 500 or status == 429
    by_kind = isinstance(error, ConnectionError | TimeoutError | NoConnection | HTTPClientError)
    return by_kind or (isinstance(error, OSError) and error.errno in _PASSING)


def file_system(address: str) -> tuple[Any, str]:
    """Returns the file system of fsspec that an address is on, and the address as it knows it; asks nothing.

    Raises:
        UserError: there is none.
    """
    import fsspec

    # object stores have no folders
    options = {"auto_mkdir": True} if address.startswith("file://") else {}
    filesystem, path = reach(address, "reached", lambda: fsspec.core.url_to_fs(address, **options))
    return filesystem, str(path)


def version_of(info: dict[str, Any]) -> str:
    """Returns what a file system tells of a file that changes with its content; empty: nothing."""
    version = next((info[name] for name in _VERSIONS if info.get(name)), "")
    return str(version.timestamp() if isinstance(version, datetime) else version)  # a listing may have seconds


_VERSIONS = ("ETag", "etag", "blob_id", "md5", "LastModified", "mtime", "created")
"""What file systems call it."""


class Store:
    """A folder of files at an address. A file in it is the old one or the new one, whole, as object stores put it."""

    def __init__(self, address: str) -> None:
        """Reads nothing.

        Raises:
            UserError: there is no file system for the address.
        """
        self.address = address.rstrip("/")
        self._filesystem, self._root = file_system(self.address)
        self._filesystem.invalidate_cache()

    def has(self, name: str) -> bool:
        """Whether a file is there.

        Raises:
            UserError: it can't be told.
        """
        return self._reach("read", lambda: bool(self._filesystem.isfile(self._path(name))))

    def put(self, file: Path, name: str) -> None:
        """Copies a file to the store.

        Raises:
            UserError: it can't be written, or has another size than the file.
        """

        def put() -> int:
            self._filesystem.put_file(str(file), self._path(name))
            self._filesystem.invalidate_cache()
            return int(self._filesystem.size(self._path(name)))

        size = self._reach("written to", put)
        if size != file.stat().st_size:
            raise UserError(f"{self.address}/{name} has {size} bytes instead of {file.stat().st_size}; copy it again.")

    def put_once(self, file: Path, name: str) -> None:
        """Copies a file whose name tells its content to the store, unless it is there, as after a kill.

        Raises:
            UserError: see `put`.
        """
        if self.size(name) != file.stat().st_size:
            self.put(file, name)

    def size(self, name: str) -> int | None:
        """Returns the bytes of a file; None where it is not there.

        Raises:
            UserError: it can't be told.
        """

        def ask() -> int | None:
            self._filesystem.invalidate_cache()
            try:
                return int(self._filesystem.size(self._path(name)))
            except FileNotFoundError:
                return None

        return self._reach("read", ask)

    def remove(self, name: str, patience_s: float | None = None) -> None:
        """Removes a file, if it is there.

        Args:
            name: of the file.
            patience_s: see `reach`.

        Raises:
            UserError: it can't be removed.
        """

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._filesystem.rm_file(self._path(name))

        reach(self.address, "written to", remove, patience_s)

    def put_json(self, name: str, value: Any) -> None:
        """Writes a value as JSON.

        Raises:
            UserError: it can't be written.
        """
        data = json.dumps(value, indent=2, ensure_ascii=False).encode()
        self._reach("written to", lambda: self._filesystem.pipe_file(self._path(name), data))

    def get_json(self, name: str) -> Any:
        """Reads a JSON file.

        Raises:
            UserError: it can't be read, or is no JSON.
        """
        return self._reach("read", lambda: json.loads(self._filesystem.cat_file(self._path(name))))

    def get(self, name: str, file: Path) -> None:
        """Copies a file from the store.

        Raises:
            UserError: it can't be read.
        """
        self._reach("read", lambda: self._filesystem.get_file(self._path(name), str(file)))

    def read_with(self, name: str, read: Callable[[Any], Result]) -> Result:
        """Opens a file, of which only what is read is fetched, and returns what is made of it.

        Raises:
            UserError: it can't be read.
        """

        def opened() -> Result:
            with self._filesystem.open(self._path(name), "rb", block_size=_FOOTER_BYTES) as stream:
                return read(stream)

        return self._reach("read", opened)

    def sha256(self, name: str) -> str | None:
        """Returns the hash of a file's bytes; None where it is not there.

        Raises:
            UserError: it can't be read.
        """

        def read() -> str | None:
            digest = hashlib.sha256()
            try:
                with self._filesystem.open(self._path(name), "rb") as stream:
                    while chunk := stream.read(_CHUNK_BYTES):
                        digest.update(chunk)
            except FileNotFoundError:
                return None
            return digest.hexdigest()

        return self._reach("read", read)

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _reach(self, done: str, call: Callable[[], Result]) -> Result:
        return reach(self.address, done, call)
