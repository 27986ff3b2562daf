"""JSON documents in a store that several processes change: each change is whole, and none is lost.

A change is written only where the document is still as it was read: with S3, If-Match on its ETag, or If-None-Match for
a new one. So of two processes that change it at once, the later reads it again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit, make_folder
from dreamloom.base.files.remote import file_system, reach, version_of

Content = dict[str, Any]
Result = TypeVar("Result")
_FRESH_S = 10.0
"""How long what was read of a document counts where nothing asks for what is there now."""
_PAUSE_S = 0.1
"""Seconds, at most, before a change is tried again that another process came before."""


class _File(Protocol):
    """A file that is written where it is as its writer knows it."""

    def read(self) -> tuple[bytes, str] | None:
        """Returns the content and its version; None where there is none."""

    def put(self, data: bytes, version: str | None) -> bool:
        """Writes the file if it has a version, or is not there (None). Returns whether it did."""


class _S3File:
    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem, self._path = filesystem, path

    def read(self) -> tuple[bytes, str] | None:
        self._filesystem.invalidate_cache()
        try:
            version = version_of(self._filesystem.info(self._path))  # before the content, which is then no older
            return self._filesystem.cat_file(self._path), version
        except FileNotFoundError:
            return None

    def put(self, data: bytes, version: str | None) -> bool:
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            self._filesystem.pipe_file(self._path, data, **condition)
        except FileNotFoundError:
            return False
        except OSError as error:
            response = getattr(error.__cause__, "response", None) or {}
            if response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (409, 412):
                return False
            raise
        return True


class _SimpleFile:
    """A file of a file system whose files are compared and written by one process at a time."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem, self._path = filesystem, path

    def read(self) -> tuple[bytes, str] | None:
        try:
            data: bytes = self._filesystem.cat_file(self._path)
        except FileNotFoundError:
            return None
        return data, hashlib.blake2b(data).hexdigest()

    def put(self, data: bytes, version: str | None) -> bool:
        with self._alone():
            found = self.read()
            if (None if found is None else found[1]) != version:
                return False
            self._write(data)
        return True

    def _alone(self) -> contextlib.AbstractContextManager[Any]:
        return _memory

    def _write(self, data: bytes) -> None:
        self._filesystem.pipe_file(self._path, data)


class _ReadOnlyFile(_SimpleFile):
    def put(self, data: bytes, version: str | None) -> bool:
        raise UserError(
            f"{self._path} is in a store where dreamloom can't compare and write in one, as several processes need; it "
            f"knows how to with {', '.join(f'{name}://' for name in _KINDS)}. Work on a folder, and copy it there with "
            "`dreamloom collection copy`."
        )


class _LocalFile(_SimpleFile):
    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        folder = Path(self._path).parent
        make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, data: bytes) -> None:
        with commit(Path(self._path)) as temporary:
            temporary.write_bytes(data)


_memory = threading.Lock()
_KINDS: Mapping[str, Callable[[Any, str], _File]] = {"s3": _S3File, "file": _LocalFile, "memory": _SimpleFile}
"""Protocol → what compares and writes in one."""


class SharedDocument:
    """A document in a store.

    Args:
        address: of the folder that it lies in.
        name: of its file there.
        begin: its content as long as it is not there.
    """

    def __init__(self, address: str, name: str, begin: Content) -> None:
        self.address = address
        self._begin = json.dumps(begin)
        self._name = name
        self._file = self._open(name)
        self._last: tuple[float, Content] | None = None

    def _open(self, name: str) -> _File:
        filesystem, root = file_system(self.address)
        protocols = (filesystem.protocol,) if isinstance(filesystem.protocol, str) else filesystem.protocol
        kind = next((_KINDS[protocol] for protocol in protocols if protocol in _KINDS), _ReadOnlyFile)
        return kind(filesystem, f"{root.rstrip('/')}/{name}")

    def read(self) -> Content:
        """Returns the content as it is now.

        Raises:
            UserError: it can't be read.
        """
        return self._read()[0]

    def glance(self) -> Content:
        """Returns the content as it was a few seconds ago, at most.

        Raises:
            UserError: it can't be read.
        """
        if self._last is None or time.monotonic() - self._last[0] > _FRESH_S:
            return self.read()
        return self._last[1]

    def change(self, change: Callable[[Content], Result], patience_s: float | None = None) -> Result:
        """Changes the content, whole or not at all.

        Args:
            change: changes what it is given, and may be called more than once: on what another process has written, or
                on what it has changed itself, where the store's answer was lost. Nothing is written if it changes
                nothing.
            patience_s: how long a store that is away is asked again; None: as usual.

        Returns:
            What `change` returned last.

        Raises:
            UserError: it can't be read or written.
        """
        while True:
            content, version = self._read(patience_s)
            before = _encoded(content)
            result = change(content)
            data = _encoded(content)
            if data == before or reach(self.address, "written to", partial(self._file.put, data, version), patience_s):
                self._last = (time.monotonic(), content)
                return result
            time.sleep(random.uniform(0, _PAUSE_S))

    def require_conditions(self) -> None:
        """Checks that the store heeds conditions, as some servers that speak S3 do not.

        Raises:
            UserError: it does not.
        """
        if reach(self.address, "written to", partial(self._file.put, _encoded(self.read()), '"0"')):
            raise UserError(
                f"The server of {self.address} writes where a condition forbids it (If-Match), so processes would "
                "overwrite each other's work; work on a folder, and copy it there with `dreamloom collection copy`."
            )

    def _read(self, patience_s: float | None = None) -> tuple[Content, str | None]:
        found = reach(self.address, "read", self._file.read, patience_s)
        try:
            content: Content = json.loads(self._begin if found is None else found[0])
        except ValueError as error:
            raise UserError(f"{self.address}/{self._name} is no JSON ({error}); bring it back from a copy.") from None
        self._last = (time.monotonic(), content)
        return content, None if found is None else found[1]


def _encoded(content: Content) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode()
