"""Which images take part: bad ones are named with a reason, and never stop a run."""

import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.images.buckets import read_folder_resolutions
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Problem, read_dataset, summarize_problems
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.evaluate.datasets import read_datasets


def save_image(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)


def test_each_bad_image_has_a_reason_and_the_others_take_part(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "good.png", (600, 500))
    save_image(tmp_path / "a" / "tiny.png", (100, 90))
    (tmp_path / "a" / "empty.jpg").touch()
    (tmp_path / "a" / "phone.HEIC").touch()
    (tmp_path / "a" / "page.jpg").write_text("<html>not found</html>")
    data = read_dataset(tmp_path, 512, 64, num_workers=2)
    assert [(sample.name, sample.size, sample.bucket) for sample in data.samples] == [
        ("a/good.png", (600, 500), (576, 448))
    ]
    assert set(data.problems) == {
        Problem("a/empty.jpg", "empty"),
        Problem("a/page.jpg", "not_an_image"),
        Problem("a/phone.HEIC", "unsupported"),
        Problem("a/tiny.png", "too_small"),
    }


def test_a_huge_image_is_left_out_before_it_is_decoded(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "good.png", (64, 64))
    Image.new("1", (10_000, 9_000)).save(tmp_path / "a" / "huge.png")
    assert read_dataset(tmp_path, 64, 16, 1).problems == (Problem("a/huge.png", "too_many_pixels"),)


def test_hostile_images_never_stop_a_reading(shared_data: Path) -> None:
    data = read_dataset(shared_data / "hostile", 64, 16, num_workers=2)
    names = {sample.name for sample in data.samples} | {problem.name for problem in data.problems}
    assert len(names) == len(data.samples) + len(data.problems)
    assert all(problem.reason for problem in data.problems)


def test_bkt_22_orientation_counts(tmp_path: Path) -> None:
    for orientation in (1, 6, 3):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / "a" / f"{orientation}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4032 // 4, 3024 // 4)).save(path, exif=exif)
    buckets = {sample.name: sample.bucket for sample in read_dataset(tmp_path, 512, 64, 1).samples}
    assert buckets == {"a/1.jpg": (576, 448), "a/6.jpg": (448, 576), "a/3.jpg": (576, 448)}


def test_a_folder_multiplied_by_nothing_is_left_out(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "x.png", (64, 64))
    save_image(tmp_path / "b" / "y.png", (64, 64))
    (tmp_path / "b" / "multiply.txt").write_text("0")
    assert [sample.name for sample in read_dataset(tmp_path, 64, 16, 1).samples] == ["a/x.png"]


def test_the_digest_is_that_of_what_is_trained_on(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "x_1.png", (64, 64))
    digests = [read_dataset(tmp_path, 64, 16, 1).digest()]
    assert read_dataset(tmp_path, 64, 16, 2).digest() == digests[0]
    (tmp_path / "a" / "multiply.txt").write_text("2")
    digests.append(read_dataset(tmp_path, 64, 16, 1).digest())
    (tmp_path / "a" / "x_1.txt").write_text("another caption")
    digests.append(read_dataset(tmp_path, 64, 16, 1).digest())
    save_image(tmp_path / "a" / "x_1.png", (64, 80))
    digests.append(read_dataset(tmp_path, 64, 16, 1).digest())
    assert len(set(digests)) == 4


def test_the_digest_follows_the_bytes_and_not_the_clock(tmp_path: Path) -> None:
    image, tar = tmp_path / "a" / "x.bmp", tmp_path / "a" / "shard.tar"
    save_image(image, (64, 64))
    with tarfile.open(tar, "w") as shard:
        shard.add(image, "y.bmp")
    before = read_dataset(tmp_path, 64, 16, 1).digest()
    for file in (image, tar):
        os.utime(file, ns=(1, 1))
        assert read_dataset(tmp_path, 64, 16, 1).digest() == before
        content = file.read_bytes()
        file.write_bytes(content[:6000] + bytes(100) + content[6100:])  # as long as before
        assert read_dataset(tmp_path, 64, 16, 1).digest() != before
        file.write_bytes(content)
    assert read_dataset(tmp_path, 64, 16, 1).digest() == before


def test_a_name_that_is_not_utf8_is_a_problem_of_its_image(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "good.png", (64, 64))
    for name in (b"a/caf\xe9.png", b"caf\xe9/x.png", b"a/caf\xe9.heic"):
        save_image(tmp_path / "copy.png", (64, 64))
        (tmp_path / os.fsdecode(name)).parent.mkdir(exist_ok=True)
        (tmp_path / "copy.png").rename(tmp_path / os.fsdecode(name))
    data = read_dataset(tmp_path, 64, 16, 1)
    assert [sample.name for sample in data.samples] == ["a/good.png"]
    assert set(data.problems) == {
        Problem("a/café.png", "name_not_utf8"),
        Problem("café/x.png", "name_not_utf8"),
        Problem("a/café.heic", "unsupported"),
    }


@pytest.mark.parametrize("caption", ["half of \ud83d\ude00"[:9], "\ufffd"])
def test_a_caption_that_is_not_text_is_told(tmp_path: Path, caption: str) -> None:
    save_image(tmp_path / "a" / "x.png", (64, 64))
    (tmp_path / "a" / "metadata.jsonl").write_text(json.dumps({"file_name": "x.png", "text": caption}))
    data = read_dataset(tmp_path, 64, 16, 1)
    assert data.samples[0].caption.encode()
    assert any("could not be decoded (U+FFFD): a/x.png" in note for note in data.notes)


def test_nothing_usable_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"a/x\.jpg \(not_an_image\)"):
        read_dataset(tmp_path, 64, 16, 1)


def test_problems_in_a_line() -> None:
    problems = [Problem(f"{n}.jpg", "empty") for n in range(5)]
    assert summarize_problems(problems) == "0.jpg (empty), 1.jpg (empty), 2.jpg (empty) and 2 more"


def test_a_folder_has_a_resolution_of_its_own(tmp_path: Path) -> None:
    for name in ("a/x", "a/deep/x", "a/deep/er/x", "ab/x"):
        save_image(tmp_path / f"{name}.png", (100, 100))
    (tmp_path / "ab" / "multiply.txt").write_text("2.5")
    sides = {"a": 32, "a/deep/er": 64}
    data = read_dataset(tmp_path, 48, 16, 1, folder_resolutions=sides)
    assert {sample.name: sample.bucket[0] for sample in data.samples} == {
        "a/x.png": 32,
        "a/deep/x.png": 32,
        "a/deep/er/x.png": 64,
        "ab/x.png": 48,
    }
    config = TrainConfig(resolution=48, bucket_reso_steps=16, folder_resolutions=["a=32", "a/deep/er=64"], epochs=4)
    assert read_folder_resolutions(config.folder_resolutions) == sides
    several, one = (BatchSchedule(each, config) for each in (data, read_dataset(tmp_path, 48, 16, 1)))
    assert several.images_by_folder() == one.images_by_folder()
    taken = [
        sample for step in several.steps_after(0) for slot in step for batch in slot for sample in batch.sample_ids
    ]
    assert len(taken) == several.num_images == 4 * 3 + 10
    with pytest.raises(UserError, match="faces is no folder of the training folder; it has a, "):
        read_datasets(tmp_path, None, config.model_copy(update={"folder_resolutions": ["faces=64"]}))


@pytest.mark.parametrize(
    ("given", "message"), [("a", "not FOLDER=PIXELS"), ("a=8", "not FOLDER=PIXELS"), ("a=72", "72 of a is")]
)
def test_a_resolution_that_can_not_be_is_refused(given: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(folder_resolutions=[given])
