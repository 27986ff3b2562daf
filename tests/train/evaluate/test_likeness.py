"""Likeness: what is learned, judged by images; by the demo's CLIP."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.evaluate.likeness import Likeness, change_of_likeness
from dreamloom.train.loop.loop import train
from dreamloom.train.run.folder import best_point

CLIP = str(Path(__file__).parents[3] / "demo" / "models" / "clip")


def test_prompts_are_those_that_were_not_trained_on_where_there_are_any(
    folder: Path, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    trained = read_dataset(folder, 32, 8, 1)
    held = shutil.copytree(folder / "own", tmp_path / "held" / "own")
    assert Likeness(trained, read_dataset(held.parent, 32, 8, 1), config()).prompts == ["a thing"]
    (held / "a thing_0.png").rename(held / "a thing upside down.png")
    assert Likeness(trained, read_dataset(held.parent, 32, 8, 1), config()).prompts == ["a thing upside down"]


def test_likeness_is_the_share_of_the_distance_that_is_gone() -> None:
    assert change_of_likeness(0.5, 0.75) == 0.5
    assert change_of_likeness(0.5, 0.5) == 0
    assert change_of_likeness(0.5, 0.25) == -0.5
    assert change_of_likeness(1.0, 0.5) == 0


def test_it_counts_as_much_as_the_loss() -> None:
    def point(seen: int, learned: float, likeness: float) -> dict[str, object]:
        changes = {"learned": {"change": learned}, "likeness": {"change": likeness}}
        return {"images_seen": seen, "forgotten": None, **changes}

    assert best_point([point(8, 0.5, 0.3), point(16, 0.6, 0.1), point(24, 0.9, -0.2)]) == 8


@pytest.mark.slow
def test_a_run_measures_it_in_the_same_noise_each_time(
    tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    settings = config(base=tiny_base, likeness_clip=CLIP, max_train_steps=2, learning_rate=1e-12)
    summary = train(folder, tmp_path / "run", settings.model_copy(update={"text_encoder_learning_rate": 0.0}), heldout)
    points = json.loads((tmp_path / "run" / "evaluation.json").read_text())["points"]
    assert points[0]["likeness"]["change"] == 0 and 0 < points[0]["likeness"]["similarity"] < 1
    assert summary.likeness == pytest.approx(0, abs=1e-4), "a model that did not change draws the same"
    with pytest.raises(UserError, match="likeness_clip needs held-out training images"):
        train(folder, tmp_path / "other", settings)
    with pytest.raises(UserError, match="neither a folder nor a model that open_clip knows"):
        train(folder, tmp_path / "other", config(base=tiny_base, likeness_clip="nowhere"), heldout)
