"""Files at addresses: read by parts and whole, through a cache that stays small, from a server that has bad days."""

from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.files import remote
from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.base.files.file_index import content_hash, content_hashes
from dreamloom.base.files.remote import Store, address_of, file_system
from dreamloom.base.files.remote_files import list_files, read_range, state_of, whole_file
from tests.s3 import S3

pytestmark = pytest.mark.usefixtures("own_cache")


def cached() -> list[int]:
    return sorted(file.stat().st_size for file in (cache_folder() / "shards").iterdir())


def test_a_path_stands_for_an_address_as_pathlib_folds_it() -> None:
    assert address_of(Path("s3://bucket/a/b/")) == address_of("s3://bucket/a/b") == "s3://bucket/a/b"
    assert address_of(Path("gs://bucket/a")) == "gs://bucket/a"
    assert address_of(Path("file:///a/b")) == address_of("file:///a/b") == "file:///a/b"
    for path in ("a", "/a/b", "C:/pictures", "./s3:", "a/s3:/b", "~/x"):
        assert address_of(path) is None


def test_files_are_listed_and_read_by_parts_and_whole(s3: type[S3]) -> None:
    s3.objects |= {"set/a/0.tar": bytes(range(100)), "set/b.txt": b"words", "set2/c": b"beside it"}
    assert {name: state.size for name, state in list_files("s3://bucket/set").items()} == {"a/0.tar": 100, "b.txt": 5}
    assert list(list_files("s3://bucket/set/a/0.tar")) == ["0.tar"]
    file = "s3://bucket/set/a/0.tar"
    assert read_range(file, 10, 5) == bytes(range(10, 15)) and read_range(file, 7, 0) == b""
    assert s3.asked == ["bytes=10-14"]
    assert read_range(file) == bytes(range(100))
    with whole_file(file, 1.0) as stream:
        assert stream.read(3) == bytes(range(3))
        assert read_range(file, 90, 10) == bytes(range(90, 100))
    assert s3.asked == ["bytes=10-14"], "the rest was taken from the cache"
    assert list_files("s3://bucket/none") == {}


def test_a_file_is_in_one_state_whether_it_was_listed_or_asked_for() -> None:
    filesystem, root = file_system("memory://states")
    filesystem.pipe_file(f"{root}/0.tar", b"abc")
    listed = list_files("memory://states")["0.tar"]
    with whole_file("memory://states/0.tar", 1.0) as stream:  # which compares it with its state now
        assert stream.read() == b"abc" and listed == state_of("memory://states/0.tar")


def test_the_cache_keeps_what_was_opened_last_and_no_more_than_it_may(s3: type[S3]) -> None:
    s3.objects |= {f"set/{number}.tar": bytes([number]) * (1000 + number) for number in range(4)}
    list_files("s3://bucket/set")
    for number in range(4):
        with whole_file(f"s3://bucket/set/{number}.tar", 2.5e-6) as stream:
            assert sum(cached()) <= 2500, "room is made before, not after"
            assert stream.read() == bytes([number]) * (1000 + number)
    assert cached() == [1002, 1003]
    with whole_file("s3://bucket/set/0.tar", 0) as stream:
        assert cached() == [1000] and stream.read(1) == bytes(1)
        assert read_range("s3://bucket/set/0.tar", 998, 2) == bytes(2)
    assert cached() == [] and s3.asked == []


def test_a_server_that_is_overloaded_is_asked_again_for_a_while(
    s3: type[S3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.objects["set/0.tar"] = b"content"
    list_files("s3://bucket/set")
    s3.refusing = [503, 503, 503]
    assert read_range("s3://bucket/set/0.tar", 0, 4) == b"cont" and not s3.refusing
    s3.refusing = [503, 503]
    Store("s3://bucket/set").get("0.tar", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"content"
    s3.refusing = [503, 503]
    monkeypatch.setattr(remote, "PATIENCE_S", 0.0)
    with pytest.raises(UserError, match=r"s3://bucket/set/0\.tar can't be read \(.*expired, or so"):
        read_range("s3://bucket/set/0.tar", 0, 4)


def test_what_will_not_pass_is_told_at_once(s3: type[S3], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_FIRST_WAIT_S", 1e6)
    s3.objects["set/0.tar"] = b"content"
    list_files("s3://bucket/set")
    s3.refusing = [403]
    with pytest.raises(UserError, match=r"s3://bucket/set/0\.tar can't be read \(The token has expired, or so"):
        read_range("s3://bucket/set/0.tar", 0, 4)
    s3.refusing = []
    with pytest.raises(UserError, match="can't be read"):
        read_range("s3://bucket/set/gone.tar", 0, 4)
    with pytest.raises(UserError, match=r"nosuch://bucket can't be reached \(Protocol not known"):
        list_files("nosuch://bucket")


def test_a_file_that_changes_is_not_mixed_with_what_it_was(s3: type[S3]) -> None:
    file = "s3://bucket/set/0.tar"
    s3.objects["set/0.tar"] = b"first content"
    list_files("s3://bucket/set")
    before = state_of(file)
    s3.objects["set/0.tar"] = b"other content"
    with pytest.raises(UserError, match=r"0\.tar changed while it was in use"), whole_file(file, 1.0):
        pass
    assert cached() == []
    list_files("s3://bucket/set")
    assert state_of(file) != before
    with whole_file(file, 1.0) as stream:
        assert stream.read() == b"other content"


def test_hashes_of_parts_are_remembered_until_the_file_changes(s3: type[S3], tmp_path: Path) -> None:
    class Part:
        file, start, length = "s3://bucket/set/0.tar", 2, 3

    s3.objects["set/0.tar"] = b"0123456"
    (tmp_path / "part").write_bytes(b"234")
    list_files("s3://bucket/set")
    for _ in range(2):
        assert content_hashes([Part()]) == [content_hash(tmp_path / "part")]
    assert s3.asked == ["bytes=2-4"]
    s3.objects["set/0.tar"] = b"6543210"
    list_files("s3://bucket/set")
    assert content_hashes([Part()]) != [content_hash(tmp_path / "part")]
    assert s3.asked == ["bytes=2-4"] * 2
