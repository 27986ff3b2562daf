"""A training set of collections at addresses is that of the same collections in folders, and its images stay there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.curate.assemble import balance, is_current
from dreamloom.curate.choose import choose
from dreamloom.curate.config import BalanceConfig, ChooseConfig
from dreamloom.curate.manifest import content_digest, manifest_path, read_manifest
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Collection, Table, packing
from dreamloom.scrape.collection.decisions import Decision, What
from dreamloom.scrape.collection.shards import push_collection
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.data.folder import read_training_folder
from dreamloom.train.evaluate.evaluate import read_heldout
from tests.curate.test_assemble import add_captions, records
from tests.s3 import S3

pytestmark = pytest.mark.usefixtures("own_cache")

Make = Callable[..., Collection]
CONFIG = BalanceConfig(ratio=1.5, held_out=0.2)
CAPTIONS = ["a cat, tail up", "a/b: what? \\ no", "two\nlines", "", " ends in a blank ", "x" * 300, "a cat, tail up"]


@pytest.fixture
def here(make_collection: Make) -> list[Source]:
    """Training and ground truth in folders, chosen, with decisions of each kind that shows."""
    cats = make_collection("cats", [{"text": text} for text in CAPTIONS])
    world = make_collection("world", records(20), part_rows=8)
    sources = [Source(cats, Role.TRAINING, multiply=2), Source(world, Role.GROUND_TRUTH)]
    choose(sources, ChooseConfig(near_duplicates="off"))
    add_captions(world)
    keys = cats.read(Table.RECORDS, columns=["key"])["key"].to_pylist()
    said = [(What.CROP, "0,0,0.5,1"), (What.FLIP, "no"), (What.MULTIPLY, "0.5"), (What.LOSS_SCALE, "-1.5")]
    said += [(What.FOCUS, "0.25,1"), (What.CROP, "4,4,40,40")]
    time = "2026-11-28T12:00:00.000000Z"
    cats.add_decisions([Decision(key, time, what, value) for key, (what, value) in zip(keys, said, strict=False)])
    return sources


def copied(sources: list[Source], to: str) -> list[Source]:
    for source in sources:
        push_collection(source.collection, f"{to}/{source.name}")
    return [Source(Collection(f"{to}/{source.name}"), source.role, source.share, source.multiply) for source in sources]


def digests(dataset: Path, heldout: Path) -> Any:
    """What is trained on and measured by: names, bytes, captions and settings, in order; and what is known of them."""
    settings = (32, 8, 2, True)
    read = {"": read_dataset(dataset, *settings), **read_heldout(heldout, *settings)}
    return {kind: (each.digest(), each.held_out, each.problems) for kind, each in read.items()}


@pytest.mark.parametrize("address", ["s3://bucket", "file://{}"])
def test_a_training_set_in_a_store_is_that_of_a_folder(
    address: str, tmp_path: Path, s3: type[S3], here: list[Source]
) -> None:
    address = address.format(tmp_path / "store")
    there, own = copied(here, f"{address}/from"), f"{address}/own"
    work = tmp_path / "work"
    wanted, summary = balance(here, CONFIG, work), balance(there, CONFIG, own)
    assert (summary.kept, summary.dropped, summary.bytes_written) == (27, {}, wanted.bytes_written)
    expected = digests(work / "dataset", work / "heldout")
    assert expected.keys() == {"", "training", "ground_truth"}
    assert digests(Path(own) / "dataset", Path(own) / "heldout") == expected
    folders = [
        {(folder.name, folder.multiply) for folder in read_training_folder(Path(f) / "dataset")} for f in (own, work)
    ]
    assert folders[0] == folders[1]


def test_a_set_in_a_folder_streams_too_and_is_made_again_where_its_images_came_to_lie_elsewhere(
    tmp_path: Path, s3: type[S3], here: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    there, work, folder = copied(here, "s3://bucket/from"), tmp_path / "work", tmp_path / "streamed"
    balance(here, CONFIG, work)
    balance(there, CONFIG, folder)
    assert digests(folder / "dataset", folder / "heldout") == digests(work / "dataset", work / "heldout")
    tables = [read_manifest(manifest_path(each)) for each in (work, folder)]
    assert tables[0].equals(tables[1]) and content_digest(manifest_path(work)) == content_digest(manifest_path(folder))
    assert {path.name for path in folder.iterdir()} - {".lock"} == {"dataset.parquet", "crops"}
    assert is_current(there, CONFIG, folder) and balance(there, CONFIG, folder).parts_done == 0
    cats = here[0].collection
    cats.add_decisions([word._replace(undo=True) for word in cats.decisions().rows if word.what is What.CROP])
    for name in [name for name in s3.objects if name.startswith("from/cats/")]:
        del s3.objects[name]
    monkeypatch.setattr(packing, "SHARD_BYTES", 1)
    push_collection(cats, "s3://bucket/from/cats")
    anew = [Source(Collection(source.collection.where), source.role, source.share, source.multiply) for source in there]
    assert not is_current(anew, CONFIG, folder)
    (folder / "crops" / "mine.tar").write_bytes(b"somebody's own")
    for sources, place in ((here, work), (anew, folder)):
        assert balance(sources, CONFIG, place).parts_done == 1
    assert digests(folder / "dataset", folder / "heldout") == digests(work / "dataset", work / "heldout")
    assert [path.name for path in (folder / "crops").iterdir()] == ["mine.tar"], "only what is ours goes"


def test_what_a_training_set_in_a_store_needs_is_said(tmp_path: Path, s3: type[S3], here: list[Source]) -> None:
    there = copied(here, "s3://bucket/from")
    with pytest.raises(UserError, match="has all of its collections in stores, or all in folders"):
        balance([here[0], there[1]], CONFIG, tmp_path / "work")
    with pytest.raises(UserError, match=r"s3://bucket/own is an address, and .*cats a folder, which others don't see"):
        balance(here, CONFIG, "s3://bucket/own")
    balance(here, CONFIG, tmp_path / "work")
    with pytest.raises(UserError, match=r"work has a training folder of images, and those .* stay there"):
        balance(there, CONFIG, tmp_path / "work")
    balance(there, CONFIG, "s3://bucket/own")
    with pytest.raises(UserError, match="own is a whole workspace, one level too high; name s3://bucket/own/dataset"):
        read_training_folder(Path("s3://bucket/own"))
    shard = next(name for name in s3.objects if name.startswith("from/world/shards/") and name.endswith(".tar"))
    del s3.objects[shard]
    with pytest.raises(UserError, match=f"{shard} can't be read"):
        read_dataset(Path("s3://bucket/own/dataset"), 32, 8, 2)
