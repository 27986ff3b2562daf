"""Files that are whole or absent."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dreamloom.base.files import (
    commit,
    commit_folder,
    commit_json,
    create_file,
    link_or_copy,
    remove_leftovers,
)


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
