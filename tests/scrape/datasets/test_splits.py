"""A split is a folder, or a word of a file's own name, and never a word of a caption."""

from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.scrape.datasets.splits import of_split, split_of

PATHS = [
    ("test/my_train_station.jpg", "test"),
    ("my_train_station.jpg", None),
    ("a train at a test site.jpg", None),
    ("trains/1.jpg", None),
    ("data/Train/1.jpg", "train"),
    ("train_0001.png", "train"),
    ("train.jpg", "train"),
    ("train12.png", "train"),
    ("trained.png", None),
    ("val/1.jpg", "validation"),
    ("dev/1.jpg", "validation"),
    ("data/train-00000-of-00002-ab12.parquet", "train"),
    ("cars-test-00000-of-00001.parquet", "test"),
    ("0000.parquet", None),
    ("train station.jpg", None),  # captions
    ("Val Kilmer on stage.jpg", None),
    ("night train/1.jpg", None),
    ("train2017/1.jpg", "train"),  # of COCO
    ("coco_val2017/1.jpg", "validation"),
    ("cars_train/1.jpg", "train"),
    ("default/partial-train/0000.parquet", "train"),  # of Hugging Face's own conversion
    ("DIV2K_train_HR/1.png", None),
    ("test/night-train/1.jpg", "test"),
    ("my test-00000.parquet", "test"),
]


@pytest.mark.parametrize(("path", "split"), PATHS)
def test_a_path_names_its_split(path: str, split: str | None) -> None:
    assert split_of(Path(path)) == split


@pytest.mark.parametrize("path", ["train/test/1.jpg", "train-test.parquet", "val/old/training/1.png"])
def test_two_splits_in_one_path_are_refused(path: str) -> None:
    with pytest.raises(UserError, match="names the splits"):
        split_of(Path(path))


def test_a_split_of_another_name_is_found_and_a_missing_one_is_told() -> None:
    files = [Path("d/train/1.jpg"), Path("d/extra/2.jpg"), Path("d/3.jpg")]
    assert of_split(Path("d"), files, "extra", "image") == [files[1]]
    assert of_split(Path("d"), files, None, "image") == files
    with pytest.raises(UserError, match="no image of the split test; it has train"):
        of_split(Path("d"), files, "test", "image")
