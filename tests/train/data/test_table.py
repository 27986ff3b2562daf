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
