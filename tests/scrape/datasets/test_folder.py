"""Captions of images of a folder: from sidecars, from file names that were written as captions, or none."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.base.files.given_names import reads_like_a_caption
from dreamloom.caption.sidecar import read_caption
from dreamloom.scrape.collection import CaptionKind, Collection, Table, key_of
from dreamloom.scrape.collection.parts import stale_parts
from dreamloom.scrape.datasets.folder import KIND, FolderConfig, ingest_folder, recipes


@pytest.mark.parametrize(
    "text",
    [
        "a red car",
        "john doe",
        "red, blue",
        "日本語のタイトル",
        "a photo of a dog",
        "a man in 1985",
        "John's new bike 2",
    ],
)
def test_names_that_somebody_wrote_are_captions(text: str) -> None:
    assert reads_like_a_caption(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02",
        "IMG",
        "IMG 1234",
        "DSC01234",
        "photo (1)",
        "PXL 20230101",
        "a-red-car",
        "f3a9 b2c4",
        "Screenshot 2024-01-01 at 10.00.00",
        "WhatsApp Image 2023-05-05 at 10",
        *("Bildschirmfoto 2024-01-01 um 10.00.00", "Capture d’écran 2024-01-01 à 10.00.00", "Copy of IMG 123"),
        *("Kopie von DSC01234", "DSC01234 - Kopie", "Scan 1 Seite 2", "Снимок экрана 2024-01-01 в 10.00.00"),
        "Photo on 02-03-19 at 10",
    ],
)
def test_names_that_machines_gave_are_not(text: str) -> None:
    assert not reads_like_a_caption(text)


@given(st.text("0123456789-()_. ", max_size=30))
def test_no_name_without_letters_is_a_caption(text: str) -> None:
    assert not reads_like_a_caption(text)


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def ingested(tmp_path: Path, **config: Any) -> dict[str, dict[str, Any]]:
    collection = Collection(tmp_path / "work")
    ingest_folder(collection, FolderConfig(path=tmp_path / "mine", **config), read_caption)
    return {Path(row["path"]).name: row for row in collection.read(Table.RECORDS).to_pylist()}


NAMES = ["a red car_(1).png", "IMG_1234.png", "02.png"]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    for name in NAMES:
        draw(tmp_path / "mine" / name)
    (tmp_path / "mine" / "02.txt").write_text("my boat\n")
    return tmp_path / "mine"


@pytest.mark.parametrize(
    ("captions", "texts"),
    [
        ("auto", ["a red car", None, "my boat"]),
        ("names", ["a red car", "IMG", "my boat"]),
        ("sidecars", [None, None, "my boat"]),
        ("none", [None, None, None]),
    ],
)
def test_captions_come_from_where_the_config_says(
    mine: Path, tmp_path: Path, captions: str, texts: list[str | None]
) -> None:
    rows = ingested(tmp_path, captions=captions)
    assert [rows[name]["text"] for name in NAMES] == texts
    kinds = [CaptionKind.NONE if text is None else CaptionKind.HUMAN for text in texts]
    assert [rows[name]["text_kind"] for name in NAMES] == kinds


def test_captions_in_a_table_that_is_not_read_are_told(
    mine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (mine / "metadata.jsonl").write_text("{}")
    ingested(tmp_path, captions="none")
    assert not caplog.text
    ingested(tmp_path)
    assert "metadata.jsonl, which may have captions and is not read" in caplog.text


def test_captions_that_are_not_read_or_may_be_read_wrongly_are_told(
    mine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = mine / "IMG_1234.png"
    for suffix in (".tags", ".cap", ".pdf"):
        image.with_suffix(suffix).write_text("a cat")
    (mine / "notes.md").write_text("of no image")
    ingested(tmp_path, captions="none")
    assert not caplog.text
    ingested(tmp_path)
    assert f"{image.stem}.cap and 1 more files beside images may hold captions" in caplog.text
    assert "UTF-8" not in caplog.text
    image.with_suffix(".txt").write_bytes("кошка".encode("cp1251"))
    ingested(tmp_path)
    assert f"1 captions are not UTF-8 and are read as Windows-1252, as that of {image}" in caplog.text


def test_a_touched_file_makes_nothing_anew_and_a_changed_one_does(mine: Path, tmp_path: Path) -> None:
    def ingest() -> int:
        return ingest_folder(collection, config, read_caption).parts_done

    collection, config = Collection(tmp_path / "work"), FolderConfig(path=mine, part_rows=2)
    assert ingest() == 2
    for file in mine.iterdir():
        os.utime(file, ns=(1, 1))
    assert stale_parts(collection, Table.RECORDS, recipes(collection, config)) == []
    stamps = collection.stamps(Table.RECORDS)
    assert ingest() == 0 and collection.stamps(Table.RECORDS) == stamps
    (mine / "02.txt").write_text("his boat\n")  # as long as before
    assert ingest() == 1
    image = mine / NAMES[1]
    image.write_bytes(image.read_bytes() + b"\0")
    assert ingest() == 1
    assert ingest_folder(collection, FolderConfig(path=mine, part_rows=2, licence="CC0"), read_caption).parts_done == 2


def test_a_folder_in_which_no_file_changed_is_not_listed_again(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in filter(Path.is_file, mine.rglob("*")):
        os.utime(file, ns=(10**18, 10**18))  # long ago
    collection, config = Collection(tmp_path / "c"), FolderConfig(path=mine)
    before = ingest_folder(collection, config, read_caption)
    listed, size = recipes(collection, config), KIND.measure(config)
    listing = "dreamloom.scrape.datasets.image_runs.list_folder"
    monkeypatch.setattr(listing, lambda *_, **__: pytest.fail("listed again"))
    assert KIND.measure(config) == size
    assert recipes(collection, config) == listed
    again = ingest_folder(collection, config, read_caption)
    assert (again.rows, again.kept, again.left_out, again.parts_done) == (before.rows, before.kept, before.left_out, 0)
    monkeypatch.undo()
    draw(mine / "one more.png")
    assert recipes(collection, config) != listed and KIND.measure(config).count == size.count + 1
    assert ingest_folder(collection, config, read_caption).rows == before.rows + 1


def test_what_systems_leave_is_no_row_and_is_counted(mine: Path, tmp_path: Path) -> None:
    for name in ("@eaDir/02.png/SYNOPHOTO_THUMB_XL.jpg", "$RECYCLE.BIN/S-1/$R1.png", "._02.png", "02-masklabel.png"):
        draw(mine / name)
    summary = ingest_folder(Collection(tmp_path / "work"), FolderConfig(path=mine), read_caption)
    assert (summary.rows, summary.left_out) == (3, {"system": 3, "mask": 1})
    assert ingest_folder(Collection(tmp_path / "work"), FolderConfig(path=mine), read_caption).left_out
    draw(tmp_path / "only" / "@eaDir" / "x.png")
    with pytest.raises(UserError, match="1 images are left out: 1 of the system"):
        ingest_folder(Collection(tmp_path / "other"), FolderConfig(path=tmp_path / "only"), read_caption)


def test_a_template_and_provenance_go_to_every_image(mine: Path, tmp_path: Path) -> None:
    rows = ingested(tmp_path, caption="a photo of a thing", licence="CC BY 4.0", author="me")
    assert {(r["text"], r["text_kind"], r["licence"], r["author"]) for r in rows.values()} == {
        ("a photo of a thing", CaptionKind.TEMPLATE, "CC BY 4.0", "me")
    }


def test_an_edited_sidecar_makes_its_part_again_where_sidecars_are_read(mine: Path, tmp_path: Path) -> None:
    def now(**config: Any) -> dict[str, str]:
        return recipes(Collection(tmp_path / "work"), FolderConfig(path=mine, **config))

    before, unread = now(), now(captions="none")
    (mine / "02.txt").write_text("my new boat\n")
    assert now() != before
    assert now(captions="none") == unread
    before = now()
    (mine / "02.yaml").write_text("main_prompt: x\n")
    assert now() != before


def test_kohya_s_json_says_captions_and_is_part_of_the_recipe(mine: Path, tmp_path: Path) -> None:
    (mine / "meta.json").write_text('{"IMG_1234": {"caption": "a dog", "tags": "park"}, "02": {"caption": ""}}')
    rows = ingested(tmp_path, captions="kohya")
    assert [rows[name]["text"] for name in NAMES] == [None, "a dog, park", ""]
    assert [rows[name]["text_kind"] for name in NAMES] == [CaptionKind.NONE, CaptionKind.HUMAN, CaptionKind.NONE]

    several = {"IMG_1234": {"caption": [None, "a dog", "b"], "tags": ["park", "day"]}, "02": {"caption": {}}}
    (mine / "meta.json").write_text(json.dumps(several))
    assert [row["text"] for row in ingested(tmp_path, captions="kohya").values()].count("a dog, park, day") == 1
    config = FolderConfig(path=mine, captions="kohya")
    before = recipes(Collection(tmp_path / "work"), config)
    (mine / "meta.json").write_text('{"IMG_1234": {"caption": "a cat", "tags": "park"}, "02": {"caption": ""}}')
    assert recipes(Collection(tmp_path / "work"), config) != before
    (mine / "meta.json").unlink()
    with pytest.raises(UserError, match="put kohya's JSON there"):
        recipes(Collection(tmp_path / "work"), config)


def test_kohya_s_json_beside_the_folder_is_part_of_the_recipe(mine: Path, tmp_path: Path) -> None:
    beside, config = mine.parent / "meta_cap.json", FolderConfig(path=mine, captions="kohya")
    beside.write_text('{"IMG_1234": {"caption": "a dog"}}')
    for file in filter(Path.is_file, mine.rglob("*")):
        os.utime(file, ns=(10**18, 10**18))  # long ago
    before = recipes(Collection(tmp_path / "work"), config)
    beside.write_text('{"IMG_1234": {"caption": "a cat"}}')
    assert recipes(Collection(tmp_path / "work"), config) != before


def test_keys_stay_when_the_folder_moves(mine: Path, tmp_path: Path) -> None:
    before = {name: row["key"] for name, row in ingested(tmp_path).items()}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mine.rename(elsewhere / "mine")
    collection = Collection(elsewhere / "work")
    ingest_folder(collection, FolderConfig(path=elsewhere / "mine"), read_caption)
    after = {Path(r["path"]).name: r["key"] for r in collection.read(Table.RECORDS).to_pylist()}
    assert after == before
    assert before["02.png"] == key_of("folder", "mine", "02.png")


def test_real_images_that_a_camera_named_have_no_caption(shared_data: Path, tmp_path: Path) -> None:
    collection = Collection(tmp_path / "car")
    summary = ingest_folder(collection, FolderConfig(path=shared_data / "subjects" / "rc_car"), read_caption)
    rows = collection.read(Table.RECORDS).to_pylist()
    assert [Path(row["path"]).name for row in rows] == ["02.jpg", "03.jpg"]
    assert {row["text_kind"] for row in rows} == {CaptionKind.NONE}
    assert summary.kept == 2


def test_names_that_are_not_utf8_are_read_as_latin_1_and_such_paths_refused(mine: Path, tmp_path: Path) -> None:
    bad = Path(os.fsdecode(b"a red caf\xe9.png"))
    draw(mine / bad)
    rows = ingested(tmp_path)
    assert rows["a red caf\xe9.png"]["text"] == "a red caf\xe9"
    with pytest.raises(ValidationError, match="is not UTF-8"):
        FolderConfig(path=tmp_path / bad)
    with pytest.raises(UserError, match="is not UTF-8; name another folder"):
        ingest_folder(Collection(tmp_path / bad), FolderConfig(path=mine), read_caption)


def test_unknown_settings_are_refused_and_the_home_folder_is_known() -> None:
    with pytest.raises(ValidationError):
        FolderConfig.model_validate({"path": "x", "caption_kind": "human"})
    assert FolderConfig(path=Path("~/x")).path == Path.home() / "x"
