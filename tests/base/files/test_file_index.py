"""A file that nobody changed is read once, and no change of its content is missed."""

import hashlib
import multiprocessing
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
import xxhash

from dreamloom.base.files import file_index
from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.base.files.file_index import WholeFile, content_hash, content_hashes

LONG_AGO = 1_000_000_000 * 10**9


@dataclass(frozen=True)
class Member:
    """Bytes inside a file."""

    path: Path
    start: int
    length: int | None

    @property
    def file(self) -> str:
        """The file."""
        return str(self.path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))


def write(path: Path, content: bytes, mtime_ns: int = LONG_AGO) -> Path:
    """Writes a file in place, as if it had been done long ago."""
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_was_read_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write(tmp_path / f"{number}", bytes([number])) for number in range(5)]
    ranges: list[file_index.FileRange] = [*map(WholeFile, files), Member(files[0], 0, 1), Member(files[0], 0, 0)]
    wanted = [sha256(bytes([number])) for number in range(5)] + [sha256(b"\0"), sha256(b"")]
    assert content_hashes(ranges) == wanted
    monkeypatch.setattr(file_index, "_hash", lambda item, algorithm: pytest.fail(f"{item} is read again"))
    assert content_hashes(ranges[::-1]) == wanted[::-1]


def test_each_algorithm_has_its_own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = [WholeFile(write(tmp_path / "0", b"0" * 3_000_000))]
    fast = xxhash.xxh3_128(b"0" * 3_000_000).hexdigest()
    assert content_hashes(file, algorithm="xxh3") == [fast]
    assert content_hashes(file) == [sha256(b"0" * 3_000_000)]
    monkeypatch.setattr(file_index, "_hash", lambda item, algorithm: pytest.fail(f"{item} is read again"))
    assert content_hashes(file, algorithm="xxh3") == [fast]


def test_a_change_is_seen_by_length_time_or_inode(tmp_path: Path) -> None:
    file = write(tmp_path / "x", b"one")
    assert content_hash(file) == sha256(b"one")
    write(file, b"two!")
    assert content_hash(file) == sha256(b"two!")
    write(file, b"2wo!", LONG_AGO + 1)
    assert content_hash(file) == sha256(b"2wo!")
    write(tmp_path / "y", b"3wo!", LONG_AGO + 1).replace(file)
    assert content_hash(file) == sha256(b"3wo!")


def test_a_file_that_may_still_change_within_one_tick_of_its_clock_is_not_trusted(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"one")
    status = file.stat()
    assert content_hash(file) == sha256(b"one")
    write(file, b"two", status.st_mtime_ns)
    assert content_hash(file) == sha256(b"two")


def test_what_can_not_be_read_has_no_hash(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    paths = [tmp_path / "missing", tmp_path, tmp_path / "pipe", Path("/dev/zero"), Path("a\0b")]
    assert content_hashes([WholeFile(path) for path in paths]) == [None] * 5


def test_names_that_are_not_utf8_are_names(tmp_path: Path) -> None:
    file = write(tmp_path / os.fsdecode(b"caf\xe9"), b"x")
    assert content_hashes([WholeFile(file)] * 2) == [sha256(b"x")] * 2
    assert content_hash(file) == sha256(b"x")


def overwrite(index: Path, start: int, data: bytes) -> None:
    with index.open("r+b") as stream:
        stream.seek(start)
        stream.write(data)
        stream.truncate()


@pytest.mark.parametrize(("start", "data"), [(0, b""), (0, b"not a database" * 1000), (4096, b"\xff" * 8192)])
def test_a_damaged_index_is_made_anew(tmp_path: Path, start: int, data: bytes) -> None:
    file = write(tmp_path / "x", b"x")
    content_hash(file)
    index = cache_folder() / file_index.FILE_INDEX
    overwrite(index, start, data)
    for _ in range(2):
        assert content_hash(file) == sha256(b"x")
    assert sqlite3.connect(index).execute("select sha256 from files").fetchall() == [(sha256(b"x"),)]


def test_without_a_cache_files_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a file", b"")
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "a file" / "cache"))
    assert content_hash(write(tmp_path / "x", b"x")) == sha256(b"x")


def _hash_all(folder: Path) -> list[str | None]:
    return content_hashes([WholeFile(file) for file in sorted(folder.iterdir())])


def test_several_processes_share_the_index(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(300):
        write(folder / f"{number:03d}", f"{number}".encode())
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        results = pool.map(_hash_all, [folder] * 3)
    assert results == [[sha256(f"{number}".encode()) for number in range(300)]] * 3
    count = sqlite3.connect(cache_folder() / file_index.FILE_INDEX).execute("select count(*) from files").fetchone()
    assert count == (300,)
