"""webdataset shards as training images."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.data.folder import read_training_folder


def png(size: tuple[int, int] = (64, 64)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "teal").save(stream, format="PNG")
    return stream.getvalue()


def shard(path: Path, members: Mapping[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_leavings_and_masks_in_a_shard_are_no_images(tmp_path: Path) -> None:
    members = dict.fromkeys(["1.jpg", "__MACOSX/2.jpg", "1-masklabel.png", "@eaDir/3.jpg"], "x")
    (folder,) = read_training_folder(shard(tmp_path / "0.tar", members))
    assert [image.name for image in folder.images] == ["0.tar/1.jpg"]


def test_a_shards_images_have_their_captions_and_bytes(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "00000.tar",
        {
            "a cat_1.png": png(),
            "2.png": png(),
            "2.txt": "from txt\n",
            "2.json": '{"caption": "not this"}',
            "3.json": '{"caption": "from json", "width": 64}',
            "3.PNG": png(),
            "4.json": "{broken",
            "4.png": png(),
            "deep/5.webp.json": "{}",
            "6.txt": "no image",
        },
    )
    (folder,) = read_training_folder(path)
    assert [(p.name, p.caption) for p in folder.images] == [
        ("00000.tar/a cat_1.png", "a cat"),
        ("00000.tar/2.png", "from txt"),
        ("00000.tar/3.png", "from json"),
        ("00000.tar/4.png", "4"),
    ]
    assert all(image.source.read() == png() for image in folder.images)


def test_shards_in_a_folder_are_images_of_that_folder(tmp_path: Path) -> None:
    for number in range(2):
        shard(tmp_path / "laion" / f"{number}.tar", {f"{n}.png": png() for n in range(3)})
    (tmp_path / "laion" / "a dog.png").write_bytes(png())
    (tmp_path / "laion" / "multiply.txt").write_text("0.5")
    (tmp_path / "laion" / "local.yaml").write_text("tags: [photo]")
    data = read_dataset(tmp_path, 64, 16, 2)
    assert len(data.samples) == 7 and {s.folder_index for s in data.samples} == {0}
    assert {float(s.settings.multiply) for s in data.samples} == {0.5}
    assert {s.caption for s in data.samples} == {"a dog, photo", "0, photo", "1, photo", "2, photo"}


def test_a_broken_shard_is_listed_and_what_is_before_the_break_takes_part(tmp_path: Path) -> None:
    whole = shard(tmp_path / "a" / "0.tar", {f"{n}.png": png((64, 48)) for n in range(8)}).read_bytes()
    (tmp_path / "a" / "0.tar").write_bytes(whole[:2700])
    (tmp_path / "a" / "1.tar").write_bytes(b"<html>not found</html>")
    (tmp_path / "a" / "fine.png").write_bytes(png())
    data = read_dataset(tmp_path, 64, 16, 2)
    names = {sample.name for sample in data.samples}
    assert "a/fine.png" in names and "a/0.tar/0.png" in names and len(names) < 9
    assert {p.name: p.reason for p in data.problems}["a/1.tar"] == "broken_shard"
    assert any(p.name.startswith("a/0.tar") for p in data.problems)


@pytest.mark.parametrize("cut", [False, True])
def test_a_shard_that_ends_too_early_is_listed_though_tarfile_is_content(tmp_path: Path, cut: bool) -> None:
    whole = bytearray(shard(tmp_path / "0.tar", {f"{n}.png": png() for n in range(4)}).read_bytes())
    second = whole.index(b"2.png")
    whole[second + 148 : second + 156] = b"no sums!"
    (tmp_path / "0.tar").write_bytes(whole[:second] if cut else whole)
    (folder,) = read_training_folder(tmp_path / "0.tar")
    assert [p.name for p in folder.images] == ["0.tar/0.png", "0.tar/1.png"]
    assert folder.broken == [("0.tar", "broken_shard")]


def test_a_shard_without_images_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images"):
        read_training_folder(shard(tmp_path / "0.tar", {"1.txt": "words"}))


def test_what_ingest_reads_of_a_shard_training_reads_too(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "a.png": png(),
        "a.json": '{"prompt": "a cat"}',
        "b.png": png(),
        "b.png.txt": "a dog",
        "c.cr2": "raw",
    }
    (folder,) = read_training_folder(shard(tmp_path / "0.tar", members))
    assert [(image.name, image.caption) for image in folder.images] == [
        ("0.tar/a.png", "a cat"),
        ("0.tar/b.png", "a dog"),
    ]
    assert [*folder.broken] == [("0.tar/c.cr2", "unsupported")]
