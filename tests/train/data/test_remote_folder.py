"""Training folders of shards at an address: the same images as in a local folder, each shard fetched once."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.train.data.dataset import Dataset, read_dataset
from dreamloom.train.data.folder import read_training_folder
from dreamloom.train.data.notes import Notes
from dreamloom.train.evaluate.evaluate import read_heldout
from tests.s3 import S3

ADDRESS = Path("s3://bucket/set")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of shards with control files, one of them broken; and what is left out."""
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "set"
    for number, name in enumerate(["own/0.tar", "ground/0.tar", "ground/deep/1.tar", "ground/.hidden/2.tar"]):
        pack(root / name, {f"a thing {n}_{n}.png": image(10 * number + n) for n in range(3)})
    (root / "ground" / "multiply.txt").write_text("0.5")
    (root / "global.yaml").write_text("tags: [photo]\n")
    broken = (root / "own" / "0.tar").read_bytes()[:1500]
    (root / "own" / "1.tar").write_bytes(broken)
    return root


def image(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 32 + 8 * (seed % 2), 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def pack(path: Path, images: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in images.items():
            for member, content in ((name, data), (f"{name[:-4]}.txt", f"caption of {name}".encode())):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def upload(folder: Path, s3: type[S3], prefix: str = "set") -> None:
    files = (file for file in folder.rglob("*") if file.is_file())
    s3.objects |= {f"{prefix}/{file.relative_to(folder).as_posix()}": file.read_bytes() for file in files}


def read(path: Path, shard_cache_gb: float = 1.0) -> Dataset:
    return read_dataset(path, 32, 8, 2, shard_cache_gb=shard_cache_gb)


def content(dataset: Dataset) -> object:
    samples = [(s.name, s.size, s.bucket, s.settings, s.image.captions, s.image.source.read()) for s in dataset.samples]
    return dataset.digest(), samples, dataset.problems, [(each.name, each.multiply) for each in dataset.folders]


@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_an_address_is_read_as_the_same_folder_here(folder: Path, s3: type[S3], cache_gb: float) -> None:
    upload(folder, s3)
    here, there = read(folder), read(ADDRESS, cache_gb)
    assert len(there.samples) == 9 and len(there.problems) == 2
    assert content(there) == content(here)
    fetched = 9 if cache_gb == 0 else 0
    assert len(s3.asked) == fetched, "images whose shard is not in the cache are asked for one by one"
    assert len(list((cache_folder() / "shards").iterdir())) == (4 if cache_gb else 0)


def test_what_is_known_of_a_shard_is_not_asked_again(folder: Path, s3: type[S3]) -> None:
    upload(folder, s3)
    before = read(ADDRESS, 0.0)
    before.digest()
    s3.got, s3.asked = [], []
    again = read(ADDRESS, 0.0)
    assert again.digest() == before.digest() and again.samples == before.samples
    assert s3.asked == [] and not [name for name in s3.got if name.endswith(".tar")]


def test_of_several_processes_each_begins_elsewhere(
    folder: Path, s3: type[S3], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(folder, s3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    there = content(read(ADDRESS))
    assert next(name for name in s3.got if name.endswith(".tar")) in ("set/own/0.tar", "set/own/1.tar")
    assert there == content(read(folder))


def test_a_shard_that_changed_is_read_anew(folder: Path, s3: type[S3]) -> None:
    upload(folder, s3)
    before = read(ADDRESS)
    pack(folder / "own" / "0.tar", {"another_1.png": image(99)})
    upload(folder, s3)
    now = read(ADDRESS)
    assert now.digest() != before.digest() and content(now) == content(read(folder))


def test_one_shard_may_be_named(folder: Path, s3: type[S3]) -> None:
    upload(folder, s3)
    assert content(read(ADDRESS / "ground" / "0.tar")) == content(read(folder / "ground" / "0.tar"))


def test_held_out_images_may_lie_at_an_address(folder: Path, s3: type[S3]) -> None:
    (folder / "own").rename(folder / "training")
    (folder / "ground").rename(folder / "ground_truth")
    upload(folder, s3)
    here, there = (read_heldout(place, 32, 8, 1, True) for place in (folder, ADDRESS))
    assert list(there) == list(here) == ["training", "ground_truth"]
    assert [content(images) for images in there.values()] == [content(images) for images in here.values()]


def test_what_is_not_read_at_an_address_is_told(folder: Path, s3: type[S3]) -> None:
    upload(folder, s3)
    s3.objects |= {"set/own/loose.jpg": b"x", "set/own/../../evil.tar": b"x", f"set/{'long' * 80}.tar": b"x"}
    notes = Notes()
    folders = read_training_folder(ADDRESS, notes)
    assert sum(len(each.images) for each in folders) == 9
    told = " ".join(notes.sentences())
    assert "images that are not in shards, and are not read at an address: own/loose.jpg" in told
    assert "names that no folder can hold" in told and "evil" in told


def test_mistakes_are_sentences_that_name_the_address(folder: Path, s3: type[S3]) -> None:
    s3.objects["set/a/1.jpg"] = b"x"
    with pytest.raises(UserError, match=r"s3://bucket/set holds no shards \(\.tar\), but 1 images that are not in any"):
        read(ADDRESS)
    upload(folder, s3)
    s3.objects["set/ground/multiply.txt"] = b"many"
    with pytest.raises(UserError, match=r"s3://bucket/set/ground/multiply\.txt"):
        read(ADDRESS)
    s3.objects["set/collection.json"] = b"{}"
    with pytest.raises(UserError, match="is a collection; name it as a source"):
        read(ADDRESS)
