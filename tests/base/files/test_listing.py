"""What systems, other trainers and dreamloom itself leave in folders is no image of the user's, and is counted."""

import json
from collections import Counter
from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.files.listing import is_left_out, left_out_note, list_folder
from dreamloom.base.files.own_folders import own_folder_kind, refuse_own_folder

LEAVINGS = [
    "@eaDir/x.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "@EADIR/x.jpg",
    "SYNOPHOTO_THUMB_M.jpg",
    "#recycle/x.jpg",
    "#Recycle/deep/x.jpg",
    "@Recycle/x.jpg",
    "@Recently-Snapshot/x.jpg",
    ".@__thumb/x.jpg",
    "$RECYCLE.BIN/S-1-5-21/$R1.png",
    "$Recycle.Bin/x.png",
    "RECYCLER/x.png",
    "System Volume Information/x.png",
    "FOUND.000/x.png",
    ".Trash-1000/files/x.jpg",
    ".Trashes/501/x.jpg",
    "__MACOSX/x.jpg",
    "._x.jpg",
    "lost+found/x.jpg",
    ".thumbnails/x.png",
    "@tmp/x.jpg",
    "$WinREAgent/x.png",
    "OneDriveTemp/x.jpg",
    "Catalog Previews.lrdata/x.jpg",
    "iPod Photo Cache/x.jpg",
]


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_in(folder: Path, left_out: Counter[str]) -> list[str]:
    listed = list_folder(folder, left_out)
    return [entry.name for entry in [*listed.folders, *listed.files]]


@pytest.mark.parametrize("leaving", LEAVINGS)
def test_what_systems_leave_is_left_out_and_counted(tmp_path: Path, leaving: str) -> None:
    make(tmp_path, "x.jpg", "recycled/x.jpg", leaving)
    left_out = Counter[str]()
    assert names_in(tmp_path, left_out) == ["recycled", "x.jpg"]
    assert left_out == {"system": 1}
    assert is_left_out(leaving) and is_left_out(f"below/{leaving}") and not is_left_out("recycled/x.jpg")


@pytest.mark.parametrize("suffix", ["crdownload", "part", "download", "tmp", "!ut"])
def test_what_is_not_finished_is_no_image(suffix: str) -> None:
    assert is_left_out(f"a/x.jpg.{suffix}") and not is_left_out(f"a/x.{suffix}.jpg")


@pytest.mark.parametrize("library", ["Photos Library.photoslibrary", "iPhoto.photolibrary", "My.APLIBRARY"])
def test_of_a_library_of_photos_the_originals_are_images(tmp_path: Path, library: str) -> None:
    make(tmp_path, *(f"{library}/{name}/0/x.jpg" for name in ("resources", "Thumbnails", "originals", "Masters")))
    left_out = Counter[str]()
    assert names_in(tmp_path / library, left_out) == ["Masters", "originals"]
    assert left_out == {"system": 2}
    assert is_left_out(f"a/{library}/resources/x.jpg") and not is_left_out(f"a/{library}/originals/x.jpg")


@pytest.mark.parametrize("name", ["x-masklabel.png", "X-MaskLabel.PNG", "x-condlabel.png"])
def test_masks_of_other_trainers_are_no_images(tmp_path: Path, name: str) -> None:
    make(tmp_path, "x.jpg", name, "my masklabel.png")
    left_out = Counter[str]()
    assert names_in(tmp_path, left_out) == ["my masklabel.png", "x.jpg"]
    assert left_out == {"mask": 1} and is_left_out(f"a/{name}")


def test_files_without_images_are_left_out_and_not_counted(tmp_path: Path) -> None:
    make(tmp_path, "Thumbs.db", "desktop.ini", ".DS_Store", "@eaDir/x.txt", ".git/x.jpg")
    make(tmp_path, "MVI_0001.THM", "~$x.jpg@SynoResource", "x.jpg@SynoEAStream")
    make(tmp_path, "x.jpg.crdownload", "x.png.part")
    left_out = Counter[str]()
    assert names_in(tmp_path, left_out) == []
    assert left_out_note(left_out) is None


@pytest.fixture
def ours(tmp_path: Path) -> dict[str, Path]:
    """A folder of each kind of ours, and those of the user that resemble them."""
    make(tmp_path, "run/samples/1.png", "collection/images/00000/1.jpg", "collection/records/00000.parquet")
    make(tmp_path, "workspace/dataset/car/1.jpg", "workspace/heldout/training/car/2.jpg", "workspace/report/1.jpg")
    (tmp_path / "run" / "config.json").write_text('{"recipe": "0", "folder": "x", "heldout": null, "config": {}}')
    make(tmp_path, "album/images/1.jpg", "album/records/1.txt", "data/dataset/1.jpg", "model/config.json")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"_class_name": "UNet"}))
    make(tmp_path, "exported/samples.png", "exported/model_index.json", "lora/samples.png", "lora/dreamloom.json")
    make(tmp_path, "audited/audit.json", "audited/pictures/1.png", "tune/tune.json", "tune/tune.png")
    return {folder.name: folder for folder in tmp_path.iterdir()}


def test_runs_collections_and_workspaces_among_images_are_left_out(tmp_path: Path, ours: dict[str, Path]) -> None:
    left_out = Counter[str]()
    assert names_in(tmp_path, left_out) == ["album", "data", "model"]
    assert left_out == {"run": 1, "collection": 1, "workspace": 3, "model": 2, "results": 2}
    assert left_out_note(left_out) == (
        "9 images are left out: 1 inside collections, 2 inside models, 2 that dreamloom drew (audits, trials, "
        "samples), 1 inside training runs, 3 inside workspaces."
    )


def test_what_sample_and_compare_draw_into_the_current_folder_is_no_image_of_it(tmp_path: Path) -> None:
    make(tmp_path, "dreamloom-sample-run.png", "dreamloom-compare-a-b.png", "dreamloom.png")
    left_out = Counter[str]()
    assert names_in(tmp_path, left_out) == ["dreamloom.png"] and left_out == {"results": 2}


@pytest.mark.parametrize("content", ["[", "[" * 100_000, "[]", "null", "\x00"])
def test_any_config_json_may_lie_in_a_folder(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert own_folder_kind(tmp_path) is None


def test_a_folder_of_ours_is_refused_with_the_one_to_take(ours: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"workspace, one level too high; name \S+/dataset \(and \S+/heldout"):
        refuse_own_folder(ours["workspace"])
    with pytest.raises(UserError, match="is a training run"):
        refuse_own_folder(ours["run"])
    with pytest.raises(UserError, match="is a collection"):
        refuse_own_folder(ours["collection"])
    refuse_own_folder(ours["data"])


def test_a_link_to_itself_is_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to("x.jpg")
    (tmp_path / "album").symlink_to("album")
    left_out = Counter[str]()
    assert names_in(tmp_path, left_out) == ["x.jpg"] and left_out == {"dead_link": 1}


def test_links_to_nothing_are_told_as_what_they_seem_to_be(tmp_path: Path) -> None:
    make(tmp_path, "x.jpg")
    for name in ("multiply.txt", "x.YAML", "metadata.parquet", "disk", "old.1", "gone.jpg"):
        (tmp_path / name).symlink_to("/mnt/not mounted/it")
    left_out = Counter[str]()
    assert names_in(tmp_path, left_out) == ["gone.jpg", "x.jpg"]
    assert left_out == {"dead_text": 3, "dead_link": 2}
    assert left_out_note(left_out) == (
        "2 images are left out: 2 behind links to nothing (a disk that is not mounted?). "
        "3 captions, control files or tables are links to nothing, and are not read."
    )
