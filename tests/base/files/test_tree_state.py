"""No change of what lies in a folder goes unseen, and nothing else changes its state."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.files.tree_state import looking_once, tree_state

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
    state = tree_state([tree, tree / "missing"])
    assert state is not None and tree_state([tree, tree / "missing"]) == state


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
    before = tree_state([tree])
    change(tree)
    assert tree_state([tree]) not in (before, None)


def test_what_may_still_change_unseen_has_no_state(tree: Path) -> None:
    (tree / "y").write_text("just now")
    assert tree_state([tree]) is None


def test_a_command_that_looks_once_sees_a_change_when_it_looks_anew_or_in_another_block(tree: Path) -> None:
    os.utime(tree / "dead", ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    with looking_once(), looking_once():
        before = tree_state([tree])
        write(tree / "y", "two!")
        assert tree_state([tree]) == before
        after = tree_state([tree], anew=True)
        assert after not in (before, None) and tree_state([tree]) == after
        write(tree / "y", "two, again")
    assert tree_state([tree]) not in (before, after, None)
