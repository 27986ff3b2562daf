"""FFHQ in each of its layouts, with and without its metadata."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.scrape.collection import CaptionKind, Collection, Table, key_of
from dreamloom.scrape.datasets.ffhq import METADATA, FfhqConfig, ingest_ffhq, recipes

IN_THE_WILD = ("in-the-wild-images", (30, 20))
LAYOUTS = [("images1024x1024", (16, 16)), IN_THE_WILD, ("thumbnails128x128", (8, 8))]


LICENCE = "CC BY-NC-SA 4.0"


def draw(path: Path, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def entry(author: str) -> dict[str, Any]:
    metadata = {
        "photo_url": f"https://photos/{author}",
        "author": author,
        "license": "CC0",
        "license_url": "https://cc0",
    }
    image = {"file_path": "images1024x1024/00000/00000.png", "face_landmarks": [[1.5, 2.5]]}
    return {"category": "training", "metadata": metadata, "image": image, "thumbnail": image}


def rows_of(collection: Collection) -> list[dict[str, Any]]:
    return list(collection.read(Table.RECORDS).to_pylist())


@pytest.fixture
def ffhq(tmp_path: Path) -> Path:
    for layout, size in LAYOUTS:
        for number in (0, 1, 1000):
            draw(tmp_path / "ffhq" / layout / f"{number - number % 1000:05d}" / f"{number:05d}.png", size)
    (tmp_path / "ffhq" / METADATA).write_text(json.dumps({"0": entry("ann"), "1000": entry("bob")}))
    return tmp_path / "ffhq"


def test_a_downloaded_set_comes_in_with_its_metadata(ffhq: Path, tmp_path: Path) -> None:
    collection = Collection(tmp_path / "faces")
    assert ingest_ffhq(collection, FfhqConfig(path=ffhq)).kept == 3
    rows = rows_of(collection)
    assert [row["key"] for row in rows] == [key_of("ffhq", stem) for stem in ("00000", "00001", "01000")]
    assert [row["author"] for row in rows] == ["ann", None, "bob"]
    assert [row["licence"] for row in rows] == ["CC0", LICENCE, "CC0"]
    of_ffhq = "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    assert [row["licence_url"] for row in rows] == ["https://cc0", of_ffhq, "https://cc0"]
    assert rows[0]["url"] == "https://photos/ann"
    assert {row["width"] for row in rows} == {16}
    assert {(row["text"], row["text_kind"]) for row in rows} == {("close up photo of a person", CaptionKind.TEMPLATE)}


@pytest.mark.parametrize(("layout", "size"), LAYOUTS)
def test_each_layout_can_be_asked_for_from_above_or_named_itself(
    ffhq: Path, tmp_path: Path, layout: Any, size: tuple[int, int]
) -> None:
    for number, config in enumerate(
        [
            FfhqConfig(path=ffhq, layout=layout),
            FfhqConfig(path=ffhq / layout, layout=layout),
            FfhqConfig(path=ffhq / layout),
        ]
    ):
        collection = Collection(tmp_path / str(number))
        ingest_ffhq(collection, config)
        assert [(row["width"], row["height"]) for row in rows_of(collection)] == [size] * 3


def test_real_faces_in_a_flat_folder(shared_data: Path, tmp_path: Path) -> None:
    metadata = shared_data / "ffhq" / "ffhq-dataset-v2.image0.readme-excerpt.json"
    collection = Collection(tmp_path / "faces")
    config = FfhqConfig(path=shared_data / "ffhq", metadata=metadata, caption="a face", limit=3)
    assert ingest_ffhq(collection, config).kept == 3
    rows = rows_of(collection)
    assert [Path(row["path"]).name for row in rows] == ["00000.png", "00001.png", "00002.png"]
    assert (rows[0]["author"], rows[0]["licence"]) == ("Jeremy Frumkin", "Attribution-NonCommercial License")
    assert (rows[1]["author"], rows[1]["licence"], rows[1]["text"]) == (None, LICENCE, "a face")


def test_changed_metadata_makes_the_records_again(ffhq: Path, tmp_path: Path) -> None:
    collection, config = Collection(tmp_path / "faces"), FfhqConfig(path=ffhq)
    before = recipes(collection, config)
    assert recipes(collection, config) == before
    (ffhq / METADATA).write_text(json.dumps({"0": entry("eve")}))
    assert recipes(collection, config) != before


def test_what_is_no_ffhq_is_refused(ffhq: Path, tmp_path: Path) -> None:
    collection = Collection(tmp_path / "faces")
    draw(tmp_path / "other" / "holiday.png")
    for config, words in [
        (FfhqConfig(path=tmp_path / "nowhere"), "is not a folder"),
        (FfhqConfig(path=tmp_path / "other"), "no image named as FFHQ"),
        (FfhqConfig(path=ffhq, metadata=tmp_path / "none.json"), "none.json is not a file"),
        (FfhqConfig(path=ffhq, layout="flat"), "are both FFHQ's image 00000"),
    ]:
        with pytest.raises(UserError, match=words):
            recipes(collection, config)
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="is JSON, but not FFHQ's"):
        ingest_ffhq(collection, FfhqConfig(path=ffhq, metadata=tmp_path / "list.json"))
    assert collection.parts(Table.RECORDS) == []


def test_names_of_stylegan_s_tool_are_known(tmp_path: Path) -> None:
    folder = tmp_path / "ffhq" / "00000"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "img00000003.png")
    collection = Collection(tmp_path / "faces")
    assert ingest_ffhq(collection, FfhqConfig(path=tmp_path / "ffhq")).kept == 1
    assert collection.read(Table.RECORDS)["key"].to_pylist() == [key_of("ffhq", "00003")]


def test_metadata_that_was_cut_off_is_told(tmp_path: Path) -> None:
    (tmp_path / "ffhq").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "ffhq" / "00000.png")
    (tmp_path / "ffhq" / "ffhq-dataset-v2.json").write_text('{"0": {"metadata": {"author": "A')
    with pytest.raises(UserError, match="is cut off, or no JSON"):
        ingest_ffhq(Collection(tmp_path / "faces"), FfhqConfig(path=tmp_path / "ffhq"))


def test_an_entry_of_the_metadata_that_is_none_costs_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "ffhq").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "ffhq" / "00000.png")
    entries = {"0": {"author": "Ann", "photo_url": {"a": 1}}, "1": [1], "x": {}, "-2": {"author": "B"}}
    (tmp_path / "ffhq" / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    collection = Collection(tmp_path / "faces")
    ingest_ffhq(collection, FfhqConfig(path=tmp_path / "ffhq"))
    (row,) = collection.read(Table.RECORDS).to_pylist()
    assert (row["author"], row["url"]) == ("Ann", None)
    assert "3 entries are no metadata" in caplog.text
