"""Captions that lie inside a training folder, in the tables of other tools."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamloom.base.errors import UserError
from dreamloom.train.data.folder import read_training_folder
from dreamloom.train.data.notes import Notes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("0001.png", "a/0002.png", "a/b/0003.png", "a/b/café.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def read(root: Path) -> tuple[dict[str, list[str]], str]:
    """Name → captions, and the notes."""
    notes = Notes()
    images = [image for folder in read_training_folder(root, notes) for image in folder.images]
    captions = {image.name: [each.caption for each in image.captions] for image in images}
    return captions, "\n".join(notes.sentences())


def lines(*rows: object) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def test_an_imagefolders_metadata_is_read_and_told(root: Path) -> None:
    (root / "metadata.jsonl").write_text(
        lines(
            {"file_name": "0001.png", "text": "one"},
            {"file_name": "a/0002.png", "text": ["two", "zwei"], "multiply": 3},
            {"file_name": "a/b/0003.png", "text": "from above"},
            {"file_name": "a\\b\\cafe\u0301.png", "text": "coffee"},
            {"file_name": "gone.png", "text": "x"},
            {"text": "nobody"},
        )
        + "{broken\n"
    )
    (root / "a" / "b" / "Metadata.csv").write_text("file_name,text\n0003.png,nearer\n")
    captions, notes = read(root)
    assert captions == {
        "0001.png": ["one"],
        "a/0002.png": ["two", "zwei"],
        "a/b/0003.png": ["nearer"],
        "a/b/café.png": ["coffee"],
    }
    assert "captions read from: metadata.jsonl (of 5 images), a/b/Metadata.csv (of 1 images)." in notes
    assert "line 6 (no file name)" in notes and "line 7 (not_json)" in notes
    assert "listed images that are not there: gone.png in metadata.jsonl." in notes
    assert [float(folder.images[0].settings.multiply) for folder in read_training_folder(root)] == [1, 3, 1]


def test_rows_of_one_image_are_several_captions(root: Path) -> None:
    rows = [{"file_name": "0001.png", "text": text} for text in ("one", "two")]
    (root / "metadata.jsonl").write_text(lines(*rows))
    assert read(root)[0]["0001.png"] == ["one", "two"]


def test_kohyas_json_is_read_and_told(root: Path) -> None:
    content = {
        "0001": {"caption": "one", "tags": "red, old"},
        "a/0002": {"tags": "two"},
        "/elsewhere/0003": {"caption": "3"},
    }
    (root / "meta_cap.json").write_text(json.dumps(content), "utf-16")
    captions, notes = read(root)
    assert captions == {
        "0001.png": ["one, red, old"],
        "a/0002.png": ["two"],
        "a/b/0003.png": ["3"],
        "a/b/café.png": ["café"],
    }
    assert "captions read from: meta_cap.json (of 3 images)." in notes


def test_a_sidecar_wins_and_a_folders_prompt_comes_after(root: Path) -> None:
    pq.write_table(
        pa.table({"file_name": ["0001.png", "a/0002.png"], "text": ["one", "two"]}), root / "metadata.parquet"
    )
    (root / "0001.txt").write_text("own")
    (root / "a" / "0002.txt").write_text(" ")
    (root / "global.yaml").write_text("main_prompt: ours\ntags: [t]")
    assert read(root)[0] == {
        "0001.png": ["own, t"],
        "a/0002.png": ["two, t"],
        "a/b/0003.png": ["ours, t"],
        "a/b/café.png": ["ours, t"],
    }


def test_an_image_of_another_split_takes_no_part(root: Path) -> None:
    (root / "metadata.jsonl").write_text(lines({"file_name": "0001.png", "text": "one", "split": "Test"}))
    folders = read_training_folder(root)
    assert [each for folder in folders for each in folder.broken] == [("0001.png", "other_split")]


@pytest.mark.parametrize("content", ["[1, 2]", '{"name": "mine", "version": 3}', "no json", "[" * 9000])
def test_another_programs_meta_json_stops_nothing(root: Path, content: str) -> None:
    (root / "meta.json").write_text(content)
    assert read(root)[0]["0001.png"] == ["0001"]


def test_a_setting_that_cannot_be_is_the_users_error(root: Path) -> None:
    (root / "metadata.jsonl").write_text(lines({"file_name": "0001.png", "text": "one", "multiply": "often"}))
    with pytest.raises(UserError, match="row 1 holds 'often'"):
        read_training_folder(root)


def test_tables_that_may_hold_captions_and_are_not_read_are_told(root: Path) -> None:
    for name in ("metadata.csv", "captions.tsv", "train.parquet", "a/my_labels.json", "a/b/0003.json", "settings.json"):
        (root / name).write_text("file_name,text\n")
    (sentence,) = [line for line in read(root)[1].splitlines() if "are not read" in line]
    assert sentence.endswith("parquet): captions.tsv, train.parquet, a/my_labels.json.")
