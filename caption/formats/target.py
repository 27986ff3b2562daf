"""Where rows are written: a new folder, or beside the images of one that is there. What is there already stays."""

import contextlib
import errno
import fcntl
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TextIO

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit, create_file
from dreamloom.caption.formats.rows import Row
from dreamloom.caption.sidecar import decode_text

MADE, RIGHT, CHANGED, SKIPPED, ODD = "made", "right", "changed", "skipped", "odd"
"""What may be said of a file: it is new; it was there, as it shall be; its caption is another; it is left out; odd."""

_CAN_T_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_CAN_T_BE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.ENOENT, errno.EACCES, errno.EISDIR)


class Log:
    """A line for each file in a log, and how many there are of each kind.

    Args:
        path: the log, which is added to when there is something to say; None: only the counts are kept.
        title: stands above the lines of this run.

    Raises:
        UserError: something is at `path` that is no such log.
    """

    def __init__(self, path: Path | None = None, title: str = "") -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """(what, why) → files."""
        self._path = path
        self._title = title
        self._stream: TextIO | None = None
        if path is not None and path.exists() and not _is_log(path):
            raise UserError(f"{path} is there, and is no log of captions; name another file with --log.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def __call__(self, what: str, file: str, why: str = "", detail: str = "") -> None:
        self.counts[what, why] += 1
        if self._path is None:
            return
        if self._stream is None:
            self._stream = self._path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")
            self._stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self._title}\n")
        line = "\t".join(part for part in (what, file, why, detail) if part)
        self._stream.write(" ".join(line.splitlines()) + "\n")

    def note(self, kind: str, where: str) -> None:
        """Something odd; a dreamloom.caption.formats.rows.Note."""
        self(ODD, where, kind)

    def count(self, what: str) -> int:
        """How many of a kind."""
        return sum(number for (kind, _), number in self.counts.items() if kind == what)


def _is_log(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return re.match(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d .* to ", stream.readline(10_000)) is not None
    except OSError:
        return False


class Target:
    """A folder that a format writes into.

    Args:
        in_place: the images lie there already, and stay as they are.
    """

    def __init__(self, folder: Path, log: Log, in_place: bool = False) -> None:
        self.folder = str(folder)
        self.in_place = in_place
        self.log = log
        self._there: dict[str, set[str]] = {}  # folder → the names in it when it was first written into

    def picture(self, row: Row, name: str) -> bool:
        """Places an image under a name: a hard link where that can be, else a copy.

        Returns:
            Whether it is there now.
        """
        if self.in_place:
            return True
        path = self._path(name)
        try:
            made = self._place(row, path)
        except OSError as error:
            if error.errno not in _CAN_T_BE:
                raise
            self.log(SKIPPED, row.name, "picture can't be read or named", error.strerror or "")
            return False
        if made or os.path.getsize(path) == row.size:
            self.log(MADE if made else RIGHT, name)
            return True
        self.log(SKIPPED, row.name, "another image is in its place")
        return False

    def text(self, name: str, data: bytes) -> None:
        """Writes a small file, unless there is one of that name."""
        path = self._path(name)
        try:
            if not self._has(path) and create_file(path, data):
                self.log(MADE, name)
                return
            with open(path, "rb") as stream:
                there = stream.read()
        except OSError as error:
            if error.errno not in _CAN_T_BE:
                raise
            self.log(SKIPPED, name, "can't be written", error.strerror or "")
            return
        if there == data or decode_text(there)[0] == decode_text(data)[0]:
            self.log(RIGHT, name)
        else:
            self.log(SKIPPED, name, "there, and says something else")

    def whole(self, name: str, write: Callable[[Path], None]) -> None:
        """Makes a large file, whole or not at all, unless it is there."""
        path = Path(self._path(name))
        if path.exists():
            self.log(RIGHT, name)
            return
        with commit(path) as temporary:
            write(temporary)
        self.log(MADE, name)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the folder for this process, without leaving a file in it.

        Raises:
            UserError: another process holds it.
        """
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise UserError(f"{self.folder} is being converted by another run; wait for it to end.") from None
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Removes what killed runs left half-written. Only for one who holds the folder."""
        for parent, _, files in os.walk(self.folder):
            for name in files:
                if _LEFT.match(name):
                    os.unlink(f"{parent}/{name}")

    def _path(self, name: str) -> str:
        """The path of a name, in a folder that is there."""
        path = f"{self.folder}/{name}"
        parent = os.path.dirname(path)
        if parent not in self._there:
            os.makedirs(parent, exist_ok=True)
            self._there[parent] = set(os.listdir(parent))
        return path

    def _has(self, path: str) -> bool:
        """Whether it was there: saves asking for each of many files."""
        parent, _, name = path.rpartition("/")
        return name in self._there[parent]

    def _place(self, row: Row, path: str) -> bool:
        if row.place is None:
            try:
                os.link(os.path.realpath(row.file) if os.path.islink(row.file) else row.file, path)
                return True
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _CAN_T_LINK:
                    raise
        return not self._has(path) and create_file(path, row.read())


_LEFT = re.compile(r"\.tmp-\d+-[0-9a-f]{12}(\.|\Z)")
"""The names of dreamloom.base.files' temporary files; nobody else's."""
