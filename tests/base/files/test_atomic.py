"""Files that are whole or absent."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dreamloom.base.files.atomic import (
    commit,
    commit_folder,
    commit_json,
    create_file,
    link,
    link_or_copy,
    make_folder,
    remove,
    remove_leftovers,
)
from dreamloom.base.sharing.folder_lock import lock
from tests.powercut import PowerCut


def left_over(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.name.startswith(".tmp-")]


def test_a_commit_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), commit(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert not left_over(tmp_path)


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_is_whole_and_never_takes_another_s_place(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "as FAT says")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "nowhere").symlink_to("not there")
    assert not create_file(tmp_path / "mine", b"new")
    assert not create_file(tmp_path / "nowhere", b"new")
    assert create_file(tmp_path / "new", b"x" * 1_000_000)
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "nowhere").is_symlink()
    assert (tmp_path / "new").read_bytes() == b"x" * 1_000_000
    assert not left_over(tmp_path)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for content in ("one", "two"):
        with commit_folder(folder) as temporary:
            (temporary / content).write_text(content)
    with pytest.raises(RuntimeError), commit_folder(folder) as temporary:
        (temporary / "three").write_text("")
        raise RuntimeError
    assert [p.name for p in folder.iterdir()] == ["two"]
    assert not left_over(tmp_path)


def test_json_keeps_unicode(tmp_path: Path) -> None:
    commit_json(tmp_path / "a.json", {"caption": "日本の猫"})
    assert "日本の猫" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_link_replaces_what_we_made_before_and_leaves_the_source(tmp_path: Path) -> None:
    source, target = tmp_path / "mine.jpg", tmp_path / "ours" / "k.jpg"
    source.write_bytes(b"image")
    link_or_copy(source, target)
    link_or_copy(source, target)
    assert target.read_bytes() == source.read_bytes() == b"image"
    assert source.stat().st_ino == target.stat().st_ino


def test_sweep_removes_the_leavings_of_dead_runs_only(tmp_path: Path) -> None:
    (tmp_path / ".tmp-1-dead.parquet").write_bytes(b"")
    (tmp_path / ".tmp-1-deadfolder").mkdir()
    (tmp_path / "00000.parquet").write_bytes(b"")
    with commit(tmp_path / "b") as mine:
        mine.write_bytes(b"")
        remove_leftovers(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([mine.name, "00000.parquet"])


def test_sweep_leaves_what_a_process_is_writing_that_came_meanwhile(tmp_path: Path) -> None:
    (tmp_path / ".tmp-dead-1").write_bytes(b"")
    (tmp_path / ".tmp-alive-1").write_bytes(b"")

    def writers() -> list[str]:
        (tmp_path / ".tmp-new-1").write_bytes(b"")
        return ["alive"]

    remove_leftovers(tmp_path, writers)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-alive-1", ".tmp-new-1"]


_PROCESS_1 = """
import os, sys
from pathlib import Path
os.getpid = lambda: 1  # as in every container
from dreamloom.base.files import atomic as files
root = Path(sys.argv[1])
files.remove_leftovers(root)
file, folder = files.commit(root / "a"), files.commit_folder(root / "b")
(file.__enter__()).touch(), folder.__enter__()
for name in os.listdir(root):
    print(name)
sys.stdout.flush()
os._exit(9)
"""


def test_sweep_removes_what_another_process_of_the_same_number_left(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROCESS_1, str(tmp_path)]
    first, second = (subprocess.run(command, capture_output=True, text=True).stdout.split() for _ in range(2))
    assert len(first) == len(second) == 2 and not set(first) & set(second)


def test_a_fork_sweeps_what_its_dead_parent_left_and_keeps_what_is_its_own(tmp_path: Path) -> None:
    with commit(tmp_path / "a") as parents:
        parents.touch()
        child = os.fork()
        if child == 0:
            with commit(tmp_path / "b") as mine:
                mine.touch()
                remove_leftovers(tmp_path)
                os._exit(0 if left_over(tmp_path) == [mine] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        parents.touch()


def test_files_have_the_rights_of_the_umask_whatever_a_library_gave_them(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        with commit(tmp_path / "a") as temporary:
            temporary.touch(0o600)
        with commit_folder(tmp_path / "folder") as folder:
            save_file({"x": np.zeros(3)}, folder / "weights.safetensors")
            (folder / "linked").hardlink_to(_private(tmp_path / "the user's"))
    finally:
        os.umask(previous)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "folder" / "weights.safetensors")]
    assert modes == [0o640, 0o640]
    assert (tmp_path / "the user's").stat().st_mode & 0o777 == 0o600, "a linked file of the user keeps its own"


def _private(path: Path) -> Path:
    path.touch(0o600)
    return path


def content(path: Path) -> object:
    """A file's bytes, or a folder's by name, without what is still being written; None where there is nothing."""
    if path.is_dir():
        return {each.name: content(each) for each in path.iterdir() if not each.name.startswith(".tmp-")}
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("old", [None, b"the old text"])
def test_a_power_cut_leaves_the_old_file_or_the_new(power: PowerCut, tmp_path: Path, old: bytes | None) -> None:
    if old is not None:
        (power.root / "a" / "b").mkdir(parents=True)
        (power.root / "a" / "b" / "c.txt").write_bytes(old)
    with power.watching(), commit(power.root / "a" / "b" / "c.txt") as temporary:
        temporary.write_bytes(b"a new text")
    found = {(content(disk / "a" / "b" / "c.txt"), ended) for disk, ended in power.left_behind(tmp_path / "found")}
    assert found == {(old, False), (b"a new text", False), (b"a new text", True)}


def test_a_power_cut_leaves_the_old_folder_the_new_one_or_none(power: PowerCut, tmp_path: Path) -> None:
    (power.root / "a" / "model").mkdir(parents=True)
    (power.root / "a" / "model" / "one").write_bytes(b"one")
    (power.root / "mine").write_bytes(b"mine")
    with power.watching(), commit_folder(power.root / "a" / "model") as folder:
        (folder / "two").write_bytes(b"two two")
        (folder / "deep" / "deeper").mkdir(parents=True)
        (folder / "deep" / "deeper" / "three").write_bytes(b"three")
        link(power.root / "mine", folder / "deep" / "linked")
    new = {"two": b"two two", "deep": {"deeper": {"three": b"three"}, "linked": b"mine"}}
    found = [(content(disk / "a" / "model"), ended) for disk, ended in power.left_behind(tmp_path / "found")]
    assert all(model in ({"one": b"one"}, None, new) for model, _ in found)
    assert all(model == new for model, ended in found if ended)


def test_what_comes_after_a_removal_is_never_found_beside_what_was_removed(power: PowerCut, tmp_path: Path) -> None:
    (power.root / "manifest").touch()
    with power.watching():
        remove(power.root / "manifest")
        commit_json(power.root / "data", {})
        remove(power.root / "nothing")
    for disk, ended in power.left_behind(tmp_path / "found"):
        assert not ((disk / "manifest").exists() and (disk / "data").exists())
        assert (disk / "data").exists() or not ended


@pytest.mark.parametrize("make", [make_folder, lambda folder: lock(folder).__enter__()])
def test_a_folder_that_was_made_is_there_after_a_power_cut(power: PowerCut, tmp_path: Path, make: Any) -> None:
    with power.watching():
        make(power.root / "a" / "b" / "c")
    assert all((disk / "a" / "b" / "c").is_dir() for disk, ended in power.left_behind(tmp_path / "found") if ended)


def test_json_holds_names_that_are_not_utf8(tmp_path: Path) -> None:
    value = {os.fsdecode(b"caf\xe9"): "caf\xe9"}
    commit_json(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == value
