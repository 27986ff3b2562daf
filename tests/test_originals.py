"""Nothing of the user's is changed, not even by a program that writes in place into what was made of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamloom.base.progress import silent
from dreamloom.caption.convert import convert
from dreamloom.caption.sidecar import read_caption
from dreamloom.curate.assemble import balance
from dreamloom.curate.choose import choose
from dreamloom.curate.config import BalanceConfig, ChooseConfig
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.datasets.coco import CocoConfig, ingest_coco
from dreamloom.scrape.datasets.ffhq import FfhqConfig, ingest_ffhq
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder
from dreamloom.scrape.datasets.huggingface import HuggingfaceConfig, ingest_huggingface
from dreamloom.scrape.datasets.imagenet import ImagenetConfig, ingest_imagenet
from tests.scrape.datasets.test_ingest import draw


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Images as every kind of source that takes files wants them; some are reached by links."""
    folder = tmp_path / "mine"
    names = ["folder/a red car.jpg", "ffhq/00001.png", "imagenet/n01440764/x.jpg", "coco/9.jpg", "hub/train/0.png"]
    for number, name in enumerate(names):
        draw(folder / name, number)
    draw(folder / "elsewhere" / "far.jpg", 8)
    (folder / "folder" / "a blue car.jpg").symlink_to("../elsewhere/far.jpg")
    (folder / "folder" / "a green car.jpg").symlink_to(draw(folder / "elsewhere" / "absolute.jpg", 9))
    photos = [{"id": 9, "file_name": "9.jpg"}]
    captions = [{"id": 1, "image_id": 9, "caption": "a photo"}]
    (folder / "captions.json").write_text(json.dumps({"images": photos, "annotations": captions}))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_collections(mine: Path, work: Path) -> Iterator[Collection]:
    names = ("folder", "ffhq", "imagenet", "coco", "hub")
    folder, ffhq, imagenet, coco, hub = (Collection(work / "collections" / name) for name in names)
    ingest_folder(folder, FolderConfig(path=mine / "folder"), read_caption)
    ingest_ffhq(ffhq, FfhqConfig(path=mine / "ffhq"))
    ingest_imagenet(imagenet, ImagenetConfig(path=mine / "imagenet"))
    ingest_coco(coco, CocoConfig(annotations=mine / "captions.json", images=mine / "coco"))
    ingest_huggingface(hub, HuggingfaceConfig(path=mine / "hub"))
    yield from (folder, ffhq, imagenet, coco, hub)


def edit_in_place(folder: Path) -> int:
    """Overwrites the first bytes of every image, as a program does that saves into the same file."""
    images = [path for path in folder.rglob("*") if path.suffix in (".jpg", ".png")]
    for image in images:
        with image.open("r+b") as stream:
            stream.write(b"edited")
    return len(images)


def test_originals_survive_edits_in_place_of_all_that_the_stages_made(mine: Path, tmp_path: Path) -> None:
    before, work = contents(mine), tmp_path / "work"
    sources = [Source(made, Role.TRAINING) for made in make_collections(mine, work)]
    choose(sources, ChooseConfig())
    balance(sources, BalanceConfig(held_out=0.2), work)
    stored = [(source.collection.root / row["image"]) for source in sources for row in rows(source.collection)]
    assert len(stored) == 7 and not any(image.is_symlink() for image in stored)
    assert edit_in_place(work / "dataset") + edit_in_place(work / "heldout") == 7
    assert contents(mine) == before
    edit_in_place(work)
    assert contents(mine) == before


def test_originals_survive_edits_in_place_of_a_converted_folder(mine: Path, tmp_path: Path) -> None:
    before = contents(mine)
    convert(mine / "folder", "filename", "txt", tmp_path / "new", tmp_path / "log", silent)
    assert edit_in_place(tmp_path / "new") == 3
    assert contents(mine) == before


def test_who_asks_for_links_gets_them_to_the_files_themselves(mine: Path, tmp_path: Path) -> None:
    collection = Collection(tmp_path / "linked")
    ingest_folder(collection, FolderConfig(path=mine / "folder", link=True), read_caption)
    originals = {"a red car.jpg": "folder/a red car.jpg", "a blue car.jpg": "elsewhere/far.jpg"}
    for row in rows(collection):
        name = Path(row["path"]).name
        image = collection.root / row["image"]
        assert image.samefile(mine / originals.get(name, "elsewhere/absolute.jpg")) and not image.is_symlink()
    convert(mine / "folder", "filename", "txt", tmp_path / "new", tmp_path / "log", silent, link=True)
    assert (tmp_path / "new" / "a red car.jpg").samefile(mine / "folder" / "a red car.jpg")


def rows(collection: Collection) -> list[dict[str, str]]:
    found: list[dict[str, str]] = collection.read(Table.RECORDS).to_pylist()
    assert all(row["status"] == "ok" for row in found), found
    return found
