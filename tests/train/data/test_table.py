"""Tables of images as training folders."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.data.folder import read_training_folder
from dreamloom.train.data.image import ImageSettings
from dreamloom.train.data.notes import Notes

ROWS: list[dict[str, Any]] = [
    {"file_name": "b/1.png", "text": "one, of many", "multiply": 0.025, "loss_scale": 2.0, "shuffle_tags": True},
    {"file_name": "a/a cat_2.png", "text": None, "multiply": None, "loss_scale": None, "shuffle_tags": None},
    {"file_name": "b/3.png", "text": "", "multiply": 2.0, "loss_scale": None, "shuffle_tags": None},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for row in ROWS:
        path = tmp_path / str(row["file_name"])
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), "teal").save(path)
    return tmp_path


def write(root: Path, suffix: str) -> Path:
    path = root / f"table{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_text(
            'file_name,text,multiply,loss_scale,shuffle_tags\nb/1.png,"one, of many",0.025,2.0,true\n'
            "a/a cat_2.png,a cat,,,\nb/3.png,,2,,\n"
        )
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_table_is_a_training_folder(root: Path, suffix: str) -> None:
    a, b = read_training_folder(write(root, suffix))
    assert (a.name, b.name) == ("a", "b")
    assert [(p.name, p.caption) for p in (*a.images, *b.images)] == [
        ("a/a cat_2.png", "a cat"),
        ("b/1.png", "one, of many"),
        ("b/3.png", "3"),
    ]
    assert b.images[0].settings == ImageSettings(Fraction(1, 40), loss_scale=2.0, shuffle_tags=True)
    assert [float(p.settings.multiply) for p in (*a.images, *b.images)] == [1, 0.025, 2]
    assert len(read_dataset(root / f"table{suffix}", 64, 16, 1).samples) == 3


def test_only_the_rows_for_training_count_as_in_our_own_manifest(root: Path) -> None:
    rows = [
        {"file": "b/1.png", "caption": "kept", "split": "train", "multiply": 0.5, "key": "x"},
        {"file": "b/3.png", "caption": "held out", "split": "heldout", "multiply": None, "key": "y"},
        {"file": None, "caption": None, "split": "dropped", "multiply": None, "key": "z"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "dataset.parquet")
    (folder,) = read_training_folder(root / "dataset.parquet")
    assert [(p.caption, float(p.settings.multiply)) for p in folder.images] == [("kept", 0.5)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_numbers_are_those_that_programs_write(root: Path, suffix: str) -> None:
    rows = [
        {"file_name": row["file_name"], "text": "x", "multiply": m}
        for row, m in zip(ROWS, (1 / 3, 1e-5, 2), strict=True)
    ]
    if suffix == ".jsonl":
        (root / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), root / "t.parquet")
    multiplies = {
        p.name: float(p.settings.multiply)
        for folder in read_training_folder(root / f"t{suffix}")
        for p in folder.images
    }
    assert multiplies == {row["file_name"]: row["multiply"] for row in rows}


def test_a_file_that_is_not_there_is_listed(root: Path) -> None:
    path = root / "t.jsonl"
    path.write_text('{"file": "a/a cat_2.png"}\n{"file": "gone.png", "caption": "x"}\n')
    data = read_dataset(path, 64, 16, 1)
    assert [s.caption for s in data.samples] == ["a cat"]
    assert [(p.name, p.reason) for p in data.problems] == [("gone.png", "missing_file")]


def images(path: Path) -> dict[str, list[str]]:
    return {
        image.name: [each.caption for each in image.captions]
        for folder in read_training_folder(path)
        for image in folder.images
    }


def faults(path: Path) -> list[tuple[str, str]]:
    return [each for folder in read_training_folder(path) for each in folder.broken]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_list_of_captions_gives_an_image_several(root: Path, suffix: str) -> None:
    rows = [
        {"file_name": "b/1.png", "text": ["a", " ", "b, c", None], "caption": float("nan")},
        {"file_name": "b/3.png", "text": ["one"], "caption": None},
        {"file_name": "a/a cat_2.png", "text": [], "caption": None},
    ]
    if suffix == ".jsonl":
        (root / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), root / "t.parquet")
    assert images(root / f"t{suffix}") == {"b/1.png": ["a", "b, c"], "b/3.png": ["one"], "a/a cat_2.png": ["a cat"]}


def test_rows_of_one_image_are_several_captions_and_show_it_no_more_often(root: Path) -> None:
    text = "file_name,text,multiply\nb/1.png,one,2\nb/3.png,three, \n./b/1.png,two,\n"
    (root / "t.csv").write_text(text)
    assert images(root / "t.csv") == {"b/1.png": ["one", "two"], "b/3.png": ["three"]}
    (folder,) = read_training_folder(root / "t.csv")
    assert [float(image.settings.multiply) for image in folder.images] == [2, 1]


def test_a_header_with_blanks_and_an_unquoted_comma(root: Path) -> None:
    (root / "t.csv").write_bytes(
        b'\xef\xbb\xbffile_name , Text , multiply\r\nb/1.png,"one, of many",2\r\n\r\nb/3.png,a man, a dog, a cat,\r\n'
        b'a/a cat_2.png,nan\r\nb/4.png,"' + b"x" * 200_000 + b'",1\r\nb/5.png,"never closed,1\r\n'
    )
    assert images(root / "t.csv") == {"b/1.png": ["one, of many"], "a/a cat_2.png": ["a cat"]}
    assert faults(root / "t.csv")[:2] == [("t.csv, line 4", "unquoted_comma"), ("t.csv, line 6", "broken_row")]
    problems = read_dataset(root / "t.csv", 64, 16, 1).problems
    assert [problem.name for problem in problems if problem.reason == "unquoted_comma"] == ["t.csv, line 4"]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_what_spreadsheets_save(root: Path, delimiter: str) -> None:
    text = f'file_name{delimiter}text\nb/1.png{delimiter}"café, old"\n'
    for encoding in ("utf-16", "cp1252"):
        (root / "t.csv").write_text(text, encoding)
        assert images(root / "t.csv") == {"b/1.png": ["café, old"]}


def test_splits_in_any_case_are_counted(root: Path) -> None:
    rows = [
        {"file_name": row["file_name"], "text": "x", "split": split}
        for row, split in zip(ROWS, ("Train ", "TEST", None), strict=True)
    ]
    (root / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    notes = Notes()
    read_training_folder(root / "t.jsonl", notes)
    assert set(images(root / "t.jsonl")) == {"b/1.png", "b/3.png"}
    assert notes.sentences() == ("rows of the split test, which are left out: t.jsonl, line 2.",)


def test_numbers_are_no_captions_and_main_prompts_are_whole(root: Path) -> None:
    (root / "t.jsonl").write_text(
        '{"file": "b/3.png", "caption": 7}\n'
        '{"file": "b/1.png", "main_prompt": "ted, old", "tags": [{"tag": "oil, red", "weight": 2}, "x"]}\n'
    )
    assert images(root / "t.jsonl") == {"b/1.png": ["ted, old, oil, red, x"], "b/3.png": ["3"]}


def test_a_path_of_windows_and_another_composition_of_accents_find_their_file(root: Path) -> None:
    (root / "b" / "1.png").rename(root / "b" / "cafe\u0301.png")
    (root / "t.jsonl").write_text('{"file": "b\\\\caf\u00e9.png", "caption": "x"}\n')
    assert [sample.caption for sample in read_dataset(root / "t.jsonl", 64, 16, 1).samples] == ["x"]


def test_bytes_that_are_no_utf_8_cost_their_row(root: Path) -> None:
    text = pa.array([b"fine", b"\xff\xfe", b"fine, too"], pa.binary()).view(pa.string())
    table = pa.table({"file": [row["file_name"] for row in ROWS], "text": text})
    pq.write_table(table, root / "t.parquet")
    assert faults(root / "t.parquet") == [("t.parquet, line 2", "broken_row")]


def test_a_caption_with_fields_asks_for_one(root: Path) -> None:
    (root / "t.jsonl").write_text('{"file": "b/1.png", "caption": {"en": "a", "de": "b"}}\n')
    with pytest.raises(UserError, match="row 1: its caption holds the fields en, de"):
        read_training_folder(root / "t.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{broken", r"t\.jsonl, line 1 \(not_json\)"),
        ("\n[1]", r"t\.jsonl, line 2 \(not_an_object\)"),
        ('{"caption": "x"}', "row 1 names no file"),
        ('{"file": "x.png", "multiply": "often"}', "row 1 holds 'often'"),
        ('{"file": "x.png", "flip_p": 2}', "row 1 holds 2"),
        ("", "no images"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        read_training_folder(tmp_path / "t.jsonl")
