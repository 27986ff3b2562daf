"""Reading EveryDream's training folder."""

from fractions import Fraction
from pathlib import Path

import pytest

from base.errors import UserError
from train.folder import read_folder, read_multiply, unused_controls


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_folders_are_read_at_any_depth_in_order_of_name(tmp_path: Path) -> None:
    touch(tmp_path / "b" / "two cats_(1).JPG", tmp_path / "a" / "deep" / "a dog.png", tmp_path / "a" / "notes.txt")
    touch(tmp_path / "b" / "a cat.webp", tmp_path / ".hidden" / "x.jpg", tmp_path / "b" / ".x.jpg")
    deep, b = read_folder(tmp_path)
    assert (deep.name, b.name) == ("a/deep", "b")
    assert [picture.caption for picture in b.pictures] == ["a cat", "two cats"]
    assert deep.pictures[0].path == tmp_path / "a" / "deep" / "a dog.png"


def test_pictures_in_the_root_are_read_too(tmp_path: Path) -> None:
    touch(tmp_path / "a cat.jpg")
    assert [folder.name for folder in read_folder(tmp_path)] == ["."]


def test_a_sidecar_wins_over_the_name_and_an_empty_caption_is_legal(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "_001.jpg", tmp_path / "a" / "name_1.jpg")
    (tmp_path / "a" / "name_1.txt").write_text("what it says inside")
    assert [picture.caption for picture in read_folder(tmp_path)[0].pictures] == ["", "what it says inside"]


def test_a_link_that_leads_back_up_is_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [folder.name for folder in read_folder(tmp_path)] == ["a"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("0.025", Fraction(1, 40)),
        ("1/3\n", Fraction(1, 3)),
        (" .5 ", Fraction(1, 2)),
        ("\ufeff4", 4),
        ("0", 0),
    ],
)
def test_multiply_is_exact(tmp_path: Path, text: str, value: Fraction) -> None:
    (tmp_path / "multiply.txt").write_text(text, encoding="utf-8")
    assert read_multiply(tmp_path) == value


@pytest.mark.parametrize("text", ["", "two", "-1", "0,5", "1e3", "nan", "1/0", "1/00", "1e999999999", "10001"])
def test_a_multiply_that_is_no_number_is_the_users_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "multiply.txt").write_text(text)
    with pytest.raises(UserError, match=r"multiply\.txt"):
        read_multiply(tmp_path)


def test_a_folder_without_multiply_is_shown_once_and_its_parents_multiply_does_not_count(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "b" / "x.jpg")
    (tmp_path / "a" / "multiply.txt").write_text("3")
    assert read_folder(tmp_path)[0].multiply == 1


def test_a_folder_with_nothing_to_show_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        read_folder(tmp_path / "missing")
    with pytest.raises(UserError, match="no pictures"):
        read_folder(tmp_path)
    touch(tmp_path / "a" / "x.jpg")
    (tmp_path / "a" / "multiply.txt").write_text("0")
    with pytest.raises(UserError, match=r"multiply\.txt"):
        read_folder(tmp_path)


def test_control_files_that_are_not_acted_upon_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.jpg", tmp_path / "a" / "flip_p.txt", tmp_path / "global.yaml")
    assert unused_controls(tmp_path) == ["a/flip_p.txt", "global.yaml"]
