"""The demo, run as `dreamloom demo` runs it, but for lengths: few images, two steps of training."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import dreamloom.demo.run as demo_run
from dreamloom.base.errors import UserError
from dreamloom.demo.home import PROJECT, WITHOUT, make_home
from dreamloom.demo.run import demo as run_demo

pytestmark = pytest.mark.slow


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo's folder whose user has changed his project.yaml so that it is soon through."""
    monkeypatch.setattr(demo_run, "EXAMINED", 2)
    folder = tmp_path / "demo-world"
    make_home(folder, seed=3, exhibits=40)
    for name in (PROJECT, WITHOUT):
        content = yaml.safe_load((folder / name).read_text())
        content["train"] |= {
            "max_train_steps": 2,
            "batch_size": 4,
            "sample_prompts": ["a big red heart on a white background"],
        }
        content["evaluate"] = {"eval_timesteps": 1}
        content["balance"]["held_out_max_ground_truth"] = 4
        (folder / name).write_text(yaml.safe_dump(content))
    return folder


def hashes(files: Iterable[Path]) -> dict[Path, str]:
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def edit_in_place(folder: Path) -> int:
    """Overwrites the beginning of every image, as a program does that saves into the same file."""
    images = [file for file in folder.rglob("*") if file.suffix in (".jpg", ".png", ".webp")]
    for image in images:
        with image.open("r+b") as stream:
            stream.write(b"edited")
    return len(images)


def test_the_demo_compares_both_runs_changes_no_source_and_has_nothing_to_do_when_run_again(
    short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = hashes(file for file in short.rglob("*") if file.is_file())
    run_demo(folder=short)
    assert hashes(sources) == sources
    said = capsys.readouterr().out
    assert "with ground truth" in said and "without ground truth" in said
    assert "2 steps, 8 images seen" in (short / "without.log").read_text()
    with Image.open(short / "picture.png") as picture:
        assert picture.width > 700 and len(np.unique(np.asarray(picture.convert("L")))) > 50
    for arm in ("before", "with", "without"):
        marks = json.loads((short / "exam" / arm / "marks.json").read_text())
        assert len(marks["right"]) == len(set(marks["prompts"])) == 4
        assert len(list((short / "exam" / arm).glob("[0-9]*.png"))) == 4
    trained = pq.read_table(short / "with" / "dataset.parquet")["caption"].to_pylist()
    assert not set(marks["prompts"]) & set(trained)
    assert (short / "with" / "model" / "model_index.json").exists()

    run_demo(folder=short)
    assert capsys.readouterr().out.count("Nothing to do") == 2
    with pytest.raises(UserError, match="made with seed 3"):
        run_demo(folder=short, seed=4)
    assert all(edit_in_place(short / arm / "dataset") > 10 for arm in ("with", "without"))
    assert edit_in_place(short / "with" / "heldout") > 3
    assert hashes(sources) == sources


def test_the_demo_says_that_its_second_run_failed(short: Path) -> None:
    project = short / WITHOUT
    project.write_text(project.read_text().replace("max_train_steps", "max_train_stepps"))
    with pytest.raises(Exception, match=r"without\.log says why"):
        run_demo(folder=short)
    assert "max_train_stepps" in (short / "without.log").read_text()
