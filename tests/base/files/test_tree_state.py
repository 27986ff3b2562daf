"""No change of what lies in a folder goes unseen, and nothing else changes its state."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.files.tree_state import look_at_tree, looking_once

LONG_AGO = 10**18


def write(path: Path, content: str, mtime_ns: int = LONG_AGO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def replace(path: Path, content: str) -> None:
    """Gives a file another inode, and nothing else."""
    write(path.with_name("new"), content)
    path.with_name("new").replace(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(tmp_path / "tree" / "a" / "x", "one")
    write(tmp_path / "tree" / "y", "two")
    write(tmp_path / "elsewhere" / "z", "three")
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree" / "a" / "up").symlink_to(tmp_path / "tree")
    (tmp_path / "tree" / "dead").symlink_to(tmp_path / "nothing")
    return tmp_path / "tree"


def test_what_is_as_it_was_has_one_state(tree: Path) -> None:
    os.utime(tree / "dead", ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    state = look_at_tree([tree, tree / "missing"]).state
    assert state is not None and look_at_tree([tree, tree / "missing"]).state == state


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: write(tree / "y", "2wo", LONG_AGO + 1),
        lambda tree: write(tree / "y", "two!"),
        lambda tree: (tree / "y").rename(tree / "z"),
        lambda tree: (tree / "a" / "x").unlink(),
        lambda tree: write(tree / "b" / "new", ""),
        lambda tree: write(tree / "link" / "z", "four"),
        lambda tree: replace(tree / "y", "two"),
    ],
)
def test_a_change_is_another_state(tree: Path, change: Callable[[Path], Any]) -> None:
    os.utime(tree / "dead", ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    before = look_at_tree([tree]).state
    change(tree)
    assert look_at_tree([tree]).state not in (before, None)


def test_what_may_still_change_unseen_has_no_state(tree: Path) -> None:
    (tree / "y").write_text("just now")
    assert look_at_tree([tree]).state is None


def test_a_command_that_looks_once_sees_a_change_when_it_looks_anew_or_in_another_block(tree: Path) -> None:
    os.utime(tree / "dead", ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    with looking_once(), looking_once():
        before = look_at_tree([tree]).state
        write(tree / "y", "two!")
        assert look_at_tree([tree]).state == before
        after = look_at_tree([tree], keep_files=True).state
        assert after not in (before, None) and look_at_tree([tree]).state == after
        write(tree / "y", "two, again")
    assert look_at_tree([tree]).state not in (before, after, None)
