"""DreamBooth's folder: subjects and their classes in balance, drawn once, and trained on like any folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.train.config import DreamBoothConfig, TrainConfig
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.dreambooth import dreambooth, read_subjects
from dreamloom.train.loop.loop import train


@pytest.fixture
def subjects(tmp_path: Path) -> Path:
    """Two subjects, of two and three images."""
    root = tmp_path / "subjects"
    for name, count in (("rex", 2), ("tom", 3)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40, 40), (number * 60, 80, 10)).save(root / name / f"IMG_{number}.png")
        (root / name / "instance.txt").write_text(f"a photo of {name}, sks dog\n")
        (root / name / "class.txt").write_text("a photo of a dog")
    return root


def settings(base: str, **changes: object) -> DreamBoothConfig:
    small = {
        "base": base,
        "resolution": 32,
        "num_class_images": 6,
        "sample_steps": 1,
        "device": "cpu",
        "sample_batch_size": 4,
    }
    return DreamBoothConfig.model_validate({**small, **changes})


@pytest.mark.slow
def test_a_folder_of_subjects_and_classes(
    subjects: Path, tmp_path: Path, tiny_base: str, config: Callable[..., TrainConfig]
) -> None:
    target = tmp_path / "target"
    summary = dreambooth(subjects, target, settings(tiny_base, prior_loss_weight=0.5))
    assert (summary.subjects, summary.images, summary.class_images, summary.drawn) == (2, 5, 12, 12)
    data = read_dataset(target, 32, 8, 1)
    captions: dict[str, set[str]] = {folder.name: set() for folder in data.folders}
    for sample in data.samples:
        captions[data.folders[sample.folder_index].name].add(sample.caption)
    assert captions["rex"] == {"a photo of rex, sks dog"} and captions["tom class"] == {"a photo of a dog"}
    weights = {data.folders[s.folder_index].name: s.settings.loss_scale for s in data.samples}
    assert weights == {"rex": 1, "rex class": 0.5, "tom": 1, "tom class": 0.5}
    assert [float(folder.multiply) for folder in data.folders] == [3, 1, 2, 1]
    drawn = {path.parent.name: path.read_bytes() for path in target.glob("* class/00002.png")}
    assert drawn["rex class"] != drawn["tom class"], "each class has noises of its own"
    assert train(target, tmp_path / "run", config(base=tiny_base)).total_images == 24


def test_what_is_there_is_not_drawn_again_and_comes_out_the_same(
    subjects: Path, tmp_path: Path, tiny_base: str
) -> None:
    dreambooth(subjects, tmp_path / "target", settings(tiny_base))
    before = {path: path.read_bytes() for path in (tmp_path / "target").glob("* class/*.png")}
    missing = tmp_path / "target" / "rex class" / "00003.png"
    missing.unlink()
    assert dreambooth(subjects, tmp_path / "target", settings(tiny_base)).drawn == 1
    assert {path: path.read_bytes() for path in (tmp_path / "target").glob("* class/*.png")} == before
    originals = {path: path.read_bytes() for path in subjects.rglob("*") if path.is_file()}
    for image in (tmp_path / "target").rglob("*.*"):
        with image.open("r+b") as stream:
            stream.write(b"edited")
    assert {path: path.read_bytes() for path in originals} == originals


@pytest.mark.slow
def test_more_images_and_another_weight_cost_no_drawing_anew(subjects: Path, tmp_path: Path, tiny_base: str) -> None:
    target = tmp_path / "target"
    dreambooth(subjects, target, settings(tiny_base))
    before = {path: path.read_bytes() for path in target.glob("* class/*.png")}
    more = dreambooth(subjects, target, settings(tiny_base, num_class_images=9, prior_loss_weight=0.25))
    assert (more.class_images, more.drawn) == (18, 6)
    assert {path: path.read_bytes() for path in before} == before
    fewer = dreambooth(subjects, target, settings(tiny_base))
    assert (fewer.class_images, fewer.drawn) == (18, 0), "nothing is taken away"
    folders = {folder.name: folder for folder in read_dataset(target, 32, 8, 1).folders}
    assert len(folders["tom class"].images) == 9 and float(folders["tom"].multiply) == 3
    (subjects / "tom" / "class.txt").write_text("a photo of a cat")
    with pytest.raises(UserError, match=r"tom class shows 'a photo of a dog', and tom/class.txt now says"):
        dreambooth(subjects, target, settings(tiny_base))


def test_what_is_missing_or_not_ours_is_said(subjects: Path, tmp_path: Path, tiny_base: str) -> None:
    dreambooth(subjects, tmp_path / "target", settings(tiny_base))
    with pytest.raises(UserError, match="other settings"):
        dreambooth(subjects, tmp_path / "target", settings(tiny_base, seed=1))
    with pytest.raises(UserError, match="not a DreamBooth folder"):
        dreambooth(subjects, subjects, settings(tiny_base))
    (subjects / "tom" / "class.txt").write_bytes("ein Foto eines Pudels, groß".encode("cp1252"))
    assert {subject.class_prompt for subject in read_subjects(subjects)} == {
        "a photo of a dog",
        "ein Foto eines Pudels, groß",
    }
    (subjects / "tom" / "class.txt").write_text(" ")
    with pytest.raises(UserError, match=r"class\.txt is missing or empty"):
        dreambooth(subjects, tmp_path / "other", settings(tiny_base))
    with pytest.raises(UserError, match="no subjects"):
        dreambooth(tmp_path / "nowhere", tmp_path / "other", settings(tiny_base))


def test_a_subjects_image_that_training_would_leave_out_is_refused(subjects: Path) -> None:
    """Else an epoch would show more of the class than of the subject."""
    image = subjects / "rex" / "IMG_1.png"
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(UserError, match=r"rex/IMG_1\.png can't be used \(\w+\); replace it"):
        read_subjects(subjects)
