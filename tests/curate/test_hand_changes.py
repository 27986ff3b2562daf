"""What a person changes in the training folder is noticed, becomes decisions or is put back, and nothing is lost."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.files.tree_state import looking_once
from dreamloom.base.tables.parquet_metadata import write_table
from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.sidecar import read_caption
from dreamloom.caption.stage import caption
from dreamloom.curate.adopt import adopt_hand_changes, put_back
from dreamloom.curate.assemble import balance
from dreamloom.curate.choose import choose
from dreamloom.curate.config import BalanceConfig, ChooseConfig
from dreamloom.curate.hand_changes import find_hand_changes
from dreamloom.curate.manifest import manifest_path, read_manifest_metadata
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder

COLOURS = ["red", "green", "blue", "black"]


class World:
    """A source of four images on the disk, its collection, and the training folder that is made of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.pictures = root, root / "pictures"
        self.collection = Collection(root / "collections" / "cats")
        self.pictures.mkdir(parents=True)
        for colour in COLOURS:
            Image.new("RGB", (40, 40), colour).save(self.pictures / f"a {colour} cat.png")
        self.make()

    def make(self) -> None:
        ingest_folder(self.collection, FolderConfig(path=self.pictures), read_caption)
        sources = [Source(self.collection, Role.TRAINING)]
        choose(sources, ChooseConfig())
        caption(self.collection, CaptionConfig())
        balance(sources, BalanceConfig(held_out=0), self.root)

    @property
    def cats(self) -> Path:
        return self.root / "dataset" / "cats"

    def changes(self) -> list[tuple[str, str]]:
        return [(change.how, Path(change.file).name) for change in find_hand_changes(self.root)]

    def adopt(self) -> None:
        adopt_hand_changes(self.root, find_hand_changes(self.root))
        assert self.changes() == []
        self.make()
        assert self.changes() == []

    def captions(self) -> dict[str, str]:
        return {f.name: read_caption(f).text for f in sorted(self.cats.glob("*.png"))}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def before(world: World) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in world.cats.iterdir()}


def replace_image(file: Path) -> None:
    """As most programs save: another file takes the place."""
    Image.new("RGB", (20, 20), "pink").save(file.with_name("new.png"))
    os.replace(file.with_name("new.png"), file)


def paint(file: Path) -> None:
    """As some programs save: into the file, which is the collection's, too."""
    Image.new("RGB", (20, 20), "pink").save(file)


CHANGES: dict[str, tuple[Callable[[Path], Any], list[tuple[str, str]]]] = {
    "delete": (lambda cats: (cats / "a red cat.png").unlink(), [("deleted", "a red cat.png")]),
    "rename": (
        lambda cats: (cats / "a red cat.png").rename(cats / "a ruby cat.png"),
        [("renamed", "a ruby cat.png")],
    ),
    "sidecar": (lambda cats: (cats / "a red cat.txt").write_text("my_cat"), [("captioned", "a red cat.png")]),
    "sidecar as Windows shows it": (
        lambda cats: (cats / "A RED CAT.txt.txt").write_text("my_cat"),
        [("captioned", "a red cat.png")],
    ),
    "yaml": (
        lambda cats: (cats / "a red cat.yaml").write_text("multiply: 2\nloss_scale: 0.5\nflip_p: 0\nfocus: 0.2,0.9"),
        [("set otherwise", "a red cat.png")],
    ),
    "replace": (lambda cats: replace_image(cats / "a red cat.png"), [("replaced", "a red cat.png")]),
    "paint": (lambda cats: paint(cats / "a red cat.png"), [("replaced", "a red cat.png")]),
}


def test_nothing_was_changed_in_a_copy_or_where_only_times_differ(world: World, tmp_path: Path) -> None:
    assert world.changes() == []
    for file in world.cats.iterdir():
        os.utime(file)
    (world.cats / ".DS_Store").touch()
    (world.cats / "Thumbs.db").touch()
    assert world.changes() == []
    copied = tmp_path / "copy"
    shutil.copytree(tmp_path / "dataset", copied / "dataset")
    shutil.copytree(tmp_path / "collections", copied / "collections")
    shutil.copyfile(tmp_path / "dataset.parquet", copied / "dataset.parquet")
    assert find_hand_changes(copied) == []
    shutil.rmtree(tmp_path / "dataset")
    assert world.changes() == []


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_stops_balance_until_it_is_adopted_and_stays(world: World, name: str) -> None:
    change, found = CHANGES[name]
    change(world.cats)
    assert world.changes() == found
    now = world.captions(), {f.name: Image.open(f).size for f in sorted(world.cats.glob("*.png"))}
    with pytest.raises(UserError, match=r"changed by hand .*dreamloom adopt"):
        world.make()
    world.adopt()
    captions, sizes = world.captions(), {f.name: Image.open(f).size for f in sorted(world.cats.glob("*.png"))}
    assert sorted(captions.values()) == sorted(now[0].values())
    assert sorted(sizes.values()) == sorted(now[1].values())
    assert {Image.open(f).size for f in world.pictures.iterdir()} == {(40, 40)}


@pytest.mark.parametrize("name", CHANGES)
def test_a_refused_change_is_put_back_and_kept_aside(world: World, before: dict[str, bytes], name: str) -> None:
    CHANGES[name][0](world.cats)
    changed = {f.read_bytes() for f in world.cats.iterdir()} - set(before.values())
    aside = put_back(world.root, find_hand_changes(world.root))
    world.make()
    assert {file.name: file.read_bytes() for file in world.cats.iterdir()} == before
    assert world.changes() == []
    kept = {f.read_bytes() for f in aside.rglob("*") if f.is_file()} if aside else set()
    assert changed <= kept


def test_a_change_during_a_run_is_not_overwritten(world: World) -> None:
    for path in world.root.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(10**18, 10**18))  # long ago, so that the look counts
    with looking_once():
        assert world.changes() == []
        (world.cats / "a red cat.png").unlink()
        Image.new("RGB", (40, 40), "white").save(world.pictures / "a white cat.png")
        with pytest.raises(UserError, match="changed by hand"):
            world.make()
    assert not (world.cats / "a red cat.png").exists()


def test_a_folder_that_moved_behind_a_link_was_not_changed(world: World, tmp_path: Path) -> None:
    shutil.move(world.cats, tmp_path / "elsewhere")
    world.cats.symlink_to(tmp_path / "elsewhere")
    (world.cats / "again").symlink_to(world.cats)
    assert world.changes() == []


def test_changes_are_found_below_the_manifest_of_an_older_release(world: World) -> None:
    rows, metadata = pq.read_table(manifest_path(world.root)), read_manifest_metadata(manifest_path(world.root))
    write_table(manifest_path(world.root), rows.drop_columns(["image", "image_sha256", "file_sha256"]), metadata)
    assert world.changes() == []
    replace_image(world.cats / "a red cat.png")
    (world.cats / "a green cat.png").unlink()
    assert world.changes() == [("deleted", "a green cat.png"), ("replaced", "a red cat.png")]


def test_what_was_seen_unchanged_is_not_looked_at_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in filter(Path.is_file, world.root.rglob("*")):
        os.utime(file, ns=(10**18, 10**18))  # long ago
    assert world.changes() == []
    monkeypatch.setattr("dreamloom.curate.hand_changes.look_at", lambda workspace: pytest.fail("looked at again"))
    assert world.changes() == []
    monkeypatch.undo()
    (world.cats / "a red cat.png").unlink()
    assert world.changes() == world.changes() == [("deleted", "a red cat.png")]


def test_a_yaml_becomes_ratings(world: World) -> None:
    CHANGES["yaml"][0](world.cats)
    world.adopt()
    said = {str(word.what): word.value for word in world.collection.decisions().counting()}
    assert said == {"multiply": "2", "loss_scale": "0.5", "flip": "no", "focus": "0.2,0.9"}
    (world.cats / "a red cat.yaml").unlink()
    world.adopt()
    assert list(world.cats.glob("*.yaml")) == []


def test_images_that_were_painted_over_come_back_when_that_is_undone(world: World) -> None:
    paint(world.cats / "a red cat.png")
    world.adopt()
    (word,) = world.collection.decisions().counting()
    assert Image.open(world.collection.root / str(word.value)).size == (20, 20)
    image = world.collection.root / world.collection.find(word.key)[Table.RECORDS]["image"]
    assert Image.open(image).size == (40, 40)


def test_what_no_decision_can_say_is_told_and_stays(world: World) -> None:
    Image.new("RGB", (20, 20)).save(world.cats / "new.png")
    (world.cats / "multiply.txt").write_text("7")
    (world.cats / "sub").mkdir()
    (world.cats / "a red cat.png").rename(world.cats / "sub" / "a red cat.png")
    found = [("moved", "a red cat.png"), ("added", "new.png"), ("set otherwise", "multiply.txt")]
    assert world.changes() == found
    adopt_hand_changes(world.root, find_hand_changes(world.root))
    assert world.changes() == found
    with pytest.raises(UserError, match="changed by hand"):
        world.make()


def test_a_later_word_about_an_adopted_change_counts(world: World) -> None:
    CHANGES["rename"][0](world.cats)
    adopt_hand_changes(world.root, find_hand_changes(world.root))
    (word,) = world.collection.decisions().counting()
    world.collection.add_decisions([word._replace(value="my cat", time="2999")])
    world.make()
    assert "my cat.png" in world.captions()
