"""Addresses on the file systems that fsspec knows (s3://, gs://, hf://, …), with errors as sentences."""

import contextlib
import hashlib
import json
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.text import brief

_CHUNK_BYTES = 2**22


def is_remote(address: str) -> bool:
    """Tells whether an address is a URL instead of a path."""
    return "://" in address


def remote_errors() -> tuple[type[Exception], ...]:
    """Returns what file systems raise; s3fs passes on some of its own library's: no credentials, no connection."""
    from botocore.exceptions import BotoCoreError, ClientError

    return OSError, ImportError, ValueError, BotoCoreError, ClientError


class Store:
    """A folder of files at an address. A file in it is the old one or the new one, whole, as object stores put it."""

    def __init__(self, address: str) -> None:
        """Reads nothing.

        Raises:
            UserError: there is no file system for the address.
        """
        import fsspec

        self.address = address.rstrip("/")
        with self._sentences("reached"):
            options = (
                {"auto_mkdir": True} if self.address.startswith("file://") else {}
            )  # object stores have no folders
            self._filesystem, self._root = fsspec.core.url_to_fs(self.address, **options)
            self._filesystem.invalidate_cache()

    def has(self, name: str) -> bool:
        """Whether a file is there.

        Raises:
            UserError: it can't be told.
        """
        with self._sentences("read"):
            return bool(self._filesystem.isfile(self._path(name)))

    def put(self, file: Path, name: str) -> None:
        """Copies a file to the store.

        Raises:
            UserError: it can't be written, or has another size than the file.
        """
        with self._sentences("written to"):
            self._filesystem.put_file(str(file), self._path(name))
            self._filesystem.invalidate_cache()
            size = self._filesystem.size(self._path(name))
        if size != file.stat().st_size:
            raise UserError(f"{self.address}/{name} has {size} bytes instead of {file.stat().st_size}; copy it again.")

    def put_json(self, name: str, value: Any) -> None:
        """Writes a value as JSON.

        Raises:
            UserError: it can't be written.
        """
        with self._sentences("written to"):
            self._filesystem.pipe_file(self._path(name), json.dumps(value, indent=2, ensure_ascii=False).encode())

    def get_json(self, name: str) -> Any:
        """Reads a JSON file.

        Raises:
            UserError: it can't be read, or is no JSON.
        """
        with self._sentences("read"):
            return json.loads(self._filesystem.cat_file(self._path(name)))

    def get(self, name: str, file: Path) -> None:
        """Copies a file from the store.

        Raises:
            UserError: it can't be read.
        """
        with self._sentences("read"):
            self._filesystem.get_file(self._path(name), str(file))

    def sha256(self, name: str) -> str | None:
        """Returns the hash of a file's bytes; None where it is not there.

        Raises:
            UserError: it can't be read.
        """
        digest = hashlib.sha256()
        with self._sentences("read"):
            try:
                with self._filesystem.open(self._path(name), "rb") as stream:
                    while chunk := stream.read(_CHUNK_BYTES):
                        digest.update(chunk)
            except FileNotFoundError:
                return None
        return digest.hexdigest()

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    @contextlib.contextmanager
    def _sentences(self, done: str) -> Iterator[None]:
        try:
            yield
        except remote_errors() as error:
            why = brief(error) or type(error).__name__
            raise UserError(
                f"{self.address} can't be {done} ({why}); check its address and your access to it, and run again."
            ) from error
