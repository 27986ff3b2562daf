"""A collection in S3: it comes back as it was, damage and trouble are told, and a copy is gone on with."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.files.own_folders import COLLECTION_MANIFEST as MANIFEST
from dreamloom.caption.sidecar import read_caption
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.shards import find_damage_at, pull_collection, push_collection
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder
from tests.s3 import S3

ADDRESS = "s3://bucket/people"


@pytest.fixture
def collection(tmp_path: Path, images: FolderConfig) -> Collection:
    made = Collection(tmp_path / "people")
    ingest_folder(made, images, read_caption)
    return made


def content(collection: Collection) -> dict[str, bytes]:
    files = (file for folder in ("records", "images") for file in (collection.root / folder).rglob("*.*"))
    return {file.relative_to(collection.root).as_posix(): file.read_bytes() for file in files}


def test_a_collection_comes_back_from_a_store_as_it_was(tmp_path: Path, s3: type[S3], collection: Collection) -> None:
    push_collection(collection, ADDRESS)
    assert not list(find_damage_at(ADDRESS))
    back = Collection(tmp_path / "back")
    pull_collection(ADDRESS, back.root)
    assert content(back) == content(collection)
    assert back.stamps(Table.RECORDS) == collection.stamps(Table.RECORDS)

    images = {Path(name).name: data for name, data in content(collection).items() if name.startswith("images/")}
    tars = {name: data for name, data in s3.objects.items() if name.endswith(".tar")}
    assert len(tars) == len(images) == 5
    for data in tars.values():
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(tmp_path / "tars", filter="data")
    found = {file.name: file.read_bytes() for file in (tmp_path / "tars").iterdir()}
    assert found == images
    for part in collection.parts(Table.RECORDS):
        for row in pq.read_table(io.BytesIO(s3.objects[f"people/shards/{part}.parquet"])).to_pylist():
            data = s3.objects[f"people/{row['shard']}"][row["offset"] :][: row["bytes"]]
            assert data == images[Path(row["image"]).name]


def test_a_copy_is_there_when_it_is_whole_and_what_is_there_is_not_copied_again(
    tmp_path: Path, s3: type[S3], collection: Collection
) -> None:
    with pytest.raises(UserError, match="holds no collection, or one that is not whole"):
        pull_collection(ADDRESS, tmp_path / "back")
    s3.room = 3
    with pytest.raises(UserError, match=r"can't be written to .*bucket is full"):
        push_collection(collection, ADDRESS)
    begun = set(s3.objects)
    assert begun and f"people/{MANIFEST}" not in begun
    s3.room, s3.put = 1000, []
    push_collection(collection, ADDRESS)
    assert "people/shards/00000.parquet" in begun and "people/shards/00000-000.tar" not in s3.put
    with pytest.raises(UserError, match="holds a collection, and stays as it is"):
        push_collection(collection, ADDRESS)
    pull_collection(ADDRESS, tmp_path / "back")
    with pytest.raises(UserError, match="exists, and stays as it is"):
        pull_collection(ADDRESS, tmp_path / "back")


def test_damage_is_found_and_nothing_outside_the_copy_is_written(
    tmp_path: Path, s3: type[S3], collection: Collection
) -> None:
    push_collection(collection, ADDRESS)
    shard, table = "shards/00001-000.tar", "records/00002.parquet"
    s3.objects[f"people/{shard}"] = s3.objects[f"people/{shard}"].replace(b"IDAT", b"IDAt")
    whole = s3.objects.pop(f"people/{table}")
    assert sorted(find_damage_at(ADDRESS)) == [(table, "is not there"), (shard, "has other bytes than were put there")]
    s3.objects[f"people/{table}"] = whole
    with pytest.raises(UserError, match="has other bytes than its records say"):
        pull_collection(ADDRESS, tmp_path / "back")
    assert not (tmp_path / "back").exists()

    manifest = json.loads(s3.objects[f"people/{MANIFEST}"])
    manifest["files"]["records/../../../evil.parquet"] = {"bytes": 0, "sha256": ""}
    s3.objects[f"people/{MANIFEST}"] = json.dumps(manifest).encode()
    with pytest.raises(UserError):
        pull_collection(ADDRESS, tmp_path / "back")
    assert not list(tmp_path.rglob("evil*"))


def test_an_image_that_is_damaged_is_not_copied(s3: type[S3], collection: Collection) -> None:
    image = next((collection.root / "images").rglob("*.png"))
    image.write_bytes(b"something else")
    with pytest.raises(UserError, match="has other bytes than its records say"):
        push_collection(collection, ADDRESS)
    assert f"people/{MANIFEST}" not in s3.objects
