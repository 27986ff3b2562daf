"""Where rows are written: a new folder, or beside the images of an existing one. Existing files stay."""

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
from dreamloom.base.files.atomic import commit, create_copy, create_file
from dreamloom.base.tables.documents import decode_text
from dreamloom.caption.formats.rows import Row

MADE, RIGHT, CHANGED, SKIPPED, ODD = "made", "right", "changed", "skipped", "odd"
"""What the log says of a file: it is new; it exists with this content; its caption changed; it is left out; odd."""

_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_UNUSABLE_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.ENOENT, errno.EACCES, errno.EISDIR)


class Log:
    """Counts files by kind, and writes a line for each to a log."""

    def __init__(self, path: Path | None = None, title: str = "") -> None:
        """Checks the path; writes nothing yet.

        Args:
            path: The log, which is appended to once there is something to say; None: only count.
            title: Stands above the lines of this run.

        Raises:
            UserError: another file is at `path`.
        """
        self.counts: Counter[tuple[str, str]] = Counter()
        """(kind, reason) → files."""
        self._path = path
        self._title = title
        self._stream: TextIO | None = None
        if path is not None and path.exists() and not _is_log(path):
            raise UserError(f"{path} exists, and is not a log of captions; name another file with --log.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def __call__(self, kind: str, file: str, reason: str = "", detail: str = "") -> None:
        """Logs a line about a file."""
        self.counts[kind, reason] += 1
        if self._path is None:
            return
        if self._stream is None:
            self._stream = self._path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")
            self._stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self._title}\n")
        line = "\t".join(part for part in (kind, file, reason, detail) if part)
        self._stream.write(" ".join(line.splitlines()) + "\n")

    def note(self, kind: str, where: str) -> None:
        """Logs something odd; a dreamloom.caption.formats.rows.Note."""
        self(ODD, where, kind)

    def count(self, kind: str) -> int:
        """Returns how many files are of a kind."""
        return sum(number for (each, _), number in self.counts.items() if each == kind)


def _is_log(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return re.match(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d .* to ", stream.readline(10_000)) is not None
    except OSError:
        return False


class Target:
    """A folder that a format writes into."""

    def __init__(self, folder: Path, log: Log, in_place: bool = False, link: bool = False) -> None:
        """Stores the arguments; touches nothing on disk.

        Args:
            folder: The folder.
            log: Gets a line for each file.
            in_place: The images are in the folder already, and stay as they are.
            link: Images become hard links where the disk can; else they are copies.
        """
        self.folder = str(folder)
        self.in_place = in_place
        self.link = link
        self.log = log
        self._existing: dict[str, set[str]] = {}  # folder → the names in it before it was written into

    def add_image(self, row: Row, name: str) -> bool:
        """Adds an image under a name.

        Returns:
            Whether it is in the folder now.
        """
        if self.in_place:
            return True
        path = self._path(name)
        try:
            is_new = self._link_or_copy(row, path)
        except OSError as error:
            if error.errno not in _UNUSABLE_NAME:
                raise
            self.log(SKIPPED, row.name, "image can't be read or named", error.strerror or "")
            return False
        if is_new or os.path.getsize(path) == row.size:
            self.log(MADE if is_new else RIGHT, name)
            return True
        self.log(SKIPPED, row.name, "another image is in its place")
        return False

    def add_text(self, name: str, data: bytes) -> None:
        """Adds a small file, unless one of that name exists."""
        path = self._path(name)
        try:
            if not self._existed(path) and create_file(path, data):
                self.log(MADE, name)
                return
            with open(path, "rb") as stream:
                existing = stream.read()
        except OSError as error:
            if error.errno not in _UNUSABLE_NAME:
                raise
            self.log(SKIPPED, name, "can't be written", error.strerror or "")
            return
        if existing == data or decode_text(existing) == decode_text(data):
            self.log(RIGHT, name)
        else:
            self.log(SKIPPED, name, "exists, and says something else")

    def add_file(self, name: str, write: Callable[[Path], None]) -> None:
        """Adds a large file atomically, unless it exists."""
        path = Path(self._path(name))
        if path.exists():
            self.log(RIGHT, name)
            return
        with commit(path) as temporary:
            write(temporary)
        self.log(MADE, name)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the folder for this process, without leaving a file in it.

        Raises:
            UserError: another process has locked it.
        """
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise UserError(f"{self.folder} is being converted by another run; wait for it to end.") from None
        finally:
            os.close(descriptor)

    def remove_leftovers(self) -> None:
        """Removes what killed runs left unfinished. Requires the lock."""
        for parent, _, files in os.walk(self.folder):
            for name in files:
                if _LEFTOVER.match(name):
                    os.unlink(f"{parent}/{name}")

    def _path(self, name: str) -> str:
        """Returns the path of a name; makes its folder."""
        path = f"{self.folder}/{name}"
        parent = os.path.dirname(path)
        if parent not in self._existing:
            os.makedirs(parent, exist_ok=True)
            self._existing[parent] = set(os.listdir(parent))
        return path

    def _existed(self, path: str) -> bool:
        """Whether the file existed before; saves a system call for each of many files."""
        parent, _, name = path.rpartition("/")
        return name in self._existing[parent]

    def _link_or_copy(self, row: Row, path: str) -> bool:
        if row.span is None and self.link:
            try:
                os.link(os.path.realpath(row.file) if os.path.islink(row.file) else row.file, path)
                return True
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
        if self._existed(path):
            return False
        return create_copy(row.file, path) if row.span is None else create_file(path, row.read())


_LEFTOVER = re.compile(r"\.tmp-(\d+|[0-9a-f]{12})-[0-9a-f]{12}(\.|\Z)")
"""The names of dreamloom.base.files.atomic' temporary files, of earlier releases too, and of no others."""
