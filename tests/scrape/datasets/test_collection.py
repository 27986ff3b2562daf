"""A collection of another project is taken as it is, only read, and seen when it changes."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.caption.sidecar import read_caption
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.known_rows import find_known_rows
from dreamloom.scrape.collection.parts import stale_parts
from dreamloom.scrape.collection.shards import push_collection
from dreamloom.scrape.datasets.collection import CollectionConfig, ingest_collection, measure, recipes
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder
from tests.s3 import S3


def fill(library: Collection, images: Path, **config: Any) -> None:
    ingest_folder(library, FolderConfig(path=images, part_rows=2, licence="CC0", **config), read_caption)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(5):
        file = tmp_path / "images" / f"a red thing_({number}).png"
        file.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    return tmp_path / "images"


@pytest.fixture
def library(tmp_path: Path, images: Path) -> Collection:
    """A collection of another project: three parts, with an image that can't be read."""
    collection = Collection(tmp_path / "other" / "collections" / "things")
    fill(collection, images)
    return collection


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, time and links of all that lies in a folder, and of the folder."""
    paths = [folder, *folder.rglob("*")]
    return {str(p): (s.st_ino, s.st_mtime_ns, s.st_nlink) for p in paths for s in [p.stat()]}


def test_a_library_is_taken_whole_and_never_touched(tmp_path: Path, library: Collection) -> None:
    shutil.rmtree(library.root / ".workers")
    (library.root / "records" / ".tmp-left").write_text("of a process that works on it")
    before = state(library.root)
    config = CollectionConfig(path=library.root)
    for name in ("one", "two"):
        own = Collection(tmp_path / name / "collections" / "mine")
        summary = ingest_collection(own, config)
        assert (summary.rows, summary.kept, summary.dropped) == (6, 5, {"not_an_image": 1})
        assert own.read(Table.RECORDS).equals(library.read(Table.RECORDS))
        for row in own.read(Table.RECORDS).to_pylist()[:5]:
            copied, original = own.root / row["image"], library.root / row["image"]
            assert copied.read_bytes() == original.read_bytes() and not copied.samefile(original)
        assert ingest_collection(own, config).parts_done == 0
    assert state(library.root) == before
    assert (measure(config).count, measure(config).unit) == (5, "images")


def test_a_change_of_the_library_is_seen_and_a_move_is_none(tmp_path: Path, library: Collection, images: Path) -> None:
    own, config = Collection(tmp_path / "mine"), CollectionConfig(path=library.root)
    ingest_collection(own, config)
    moved = CollectionConfig(path=shutil.copytree(library.root, tmp_path / "moved"))
    assert stale_parts(own, Table.RECORDS, recipes(own, moved)) == []
    (images / "a red thing_(2).txt").write_text("a mended caption")
    fill(library, images)
    assert stale_parts(own, Table.RECORDS, recipes(own, config)) == ["00001"]
    images_before = {file: file.stat().st_ino for file in own.root.glob("images/*/*")}
    ingest_collection(own, config)
    assert own.read(Table.RECORDS).equals(library.read(Table.RECORDS))
    assert {file: file.stat().st_ino for file in own.root.glob("images/*/*")} == images_before
    for file in images.glob("*(4).png"):
        file.unlink()
    (images / "broken.png").unlink()
    fill(library, images)
    ingest_collection(own, config)
    assert own.parts(Table.RECORDS) == ["00000", "00001"]


def test_a_library_that_changes_under_the_run_is_refused_not_mixed(
    tmp_path: Path, library: Collection, images: Path
) -> None:
    own, config = Collection(tmp_path / "mine"), CollectionConfig(path=library.root)

    def change(done: int, total: int | None, note: str = "") -> None:
        (images / "a red thing_(0).txt").write_text("another caption")
        fill(library, images)

    with pytest.raises(UserError, match="changed while it was read; run again"):
        ingest_collection(own, config, change)
    ingest_collection(own, config)
    assert own.read(Table.RECORDS).equals(library.read(Table.RECORDS))

    image = library.root / library.read(Table.RECORDS)["image"][3].as_py()
    other = Collection(tmp_path / "another")
    image.write_bytes(b"the next image, whose records are not written yet")
    with pytest.raises(UserError, match="is not what its records say"):
        ingest_collection(other, config)
    os.unlink(image)
    with pytest.raises(UserError, match="is not there"):
        ingest_collection(other, config)
    assert other.parts(Table.RECORDS) == ["00000"]


def test_captions_of_the_library_are_taken_on_request(tmp_path: Path, library: Collection) -> None:
    for part in library.parts(Table.RECORDS)[:2]:
        rows = [{"key": k, "caption": f"by BLIP {k}", "kind": "model"} for k in _keys(library, part)]
        library.write(
            Table.CAPTIONS, part, rows, recipe="1", config=StageConfig(), summary=Summary(len(rows), len(rows))
        )
    own, config = Collection(tmp_path / "mine"), CollectionConfig(path=library.root, take_captions=True)
    ingest_collection(own, config)
    rows = own.read(Table.RECORDS).to_pylist()
    assert [(row["text"], row["text_kind"]) for row in rows[:4]] == [(f"by BLIP {r['key']}", "model") for r in rows[:4]]
    assert (rows[4]["text"], rows[4]["text_kind"]) == ("a red thing", "human")


def test_what_is_no_collection_is_told(tmp_path: Path, library: Collection, images: Path) -> None:
    own = Collection(tmp_path / "mine")
    with pytest.raises(UserError, match=r"is no collection; .*other/collections has things\."):
        recipes(own, CollectionConfig(path=tmp_path / "other"))
    with pytest.raises(UserError, match="is no collection"):
        recipes(own, CollectionConfig(path=images))
    with pytest.raises(UserError, match="is the collection that is to be filled"):
        recipes(library, CollectionConfig(path=library.root))


def _keys(collection: Collection, part: str) -> list[str]:
    keys: list[str] = collection.read(Table.RECORDS, part, ["key"])["key"].to_pylist()
    return keys


def test_a_library_in_a_store_is_taken_as_one_in_a_folder(
    tmp_path: Path, library: Collection, s3: type[S3], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    row: dict[str, Any] = {"key": "k", "caption": "a thing", "kind": "model", "recipe": "known/1"}
    library.write(Table.CAPTIONS, "00000", [row], recipe="r", config=StageConfig(), summary=Summary(rows=1, kept=1))
    push_collection(library, "s3://bucket/things")
    here, there = CollectionConfig(path=library.root), CollectionConfig(path=Path("s3://bucket/things"))
    own = Collection(tmp_path / "two" / "mine")
    s3.got = []
    assert ingest_collection(own, there).kept == 5 and measure(there).count == 5
    assert own.read(Table.RECORDS).equals(library.read(Table.RECORDS))
    for row in own.read(Table.RECORDS).to_pylist()[:5]:
        assert (own.root / row["image"]).read_bytes() == (library.root / row["image"]).read_bytes()
    fetched = [name for name in s3.got if not name.endswith("collection.json")]
    assert len(fetched) == len(set(fetched)) and s3.asked == [], "each table and each shard was fetched once"
    assert recipes(own, there) == recipes(own, here), "a copy is no other library"
    found = find_known_rows(own, Table.CAPTIONS, ["known/1"], ["recipe", "caption"])
    assert found["caption"].to_pylist() == ["a thing"], "what the library knows is known"


def test_a_library_in_a_store_that_is_damaged_or_not_whole_is_told(
    tmp_path: Path, library: Collection, s3: type[S3], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    own, there = Collection(tmp_path / "two" / "mine"), CollectionConfig(path=Path("s3://bucket/things"))
    with pytest.raises(UserError, match="s3://bucket/things holds no collection, or one that is not whole"):
        ingest_collection(own, there)
    push_collection(library, "s3://bucket/things")
    shard = "things/shards/00001-000.tar"
    s3.objects[shard] = s3.objects[shard].replace(b"IDAT", b"IDAt")
    with pytest.raises(UserError, match=r"00001-000\.tar is not what its records say.*verify s3://bucket/things"):
        ingest_collection(own, there)
    assert own.parts(Table.RECORDS) == ["00000"]
    table = "things/records/00002.parquet"
    s3.objects[table] = s3.objects[table][:-9]
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "another"))
    with pytest.raises(UserError, match=r"records/00002\.parquet is not what was put there"):
        recipes(own, there)
