"""What a user names as a trained model is a run, one of its checkpoints, or a whole model; anything else is said."""

from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.run.find import find_trained_model
from dreamloom.train.run.folder import write_settings

MODEL = Path(__file__).parents[3] / "demo" / "models" / "stable-diffusion"


def checkpoint(run: Path, images_seen: int) -> Path:
    path = run / "checkpoints" / str(images_seen)
    path.mkdir(parents=True)
    (path / "weights.safetensors").touch()
    return path


def test_a_run_stands_for_its_best_checkpoint_and_a_checkpoint_for_itself(tmp_path: Path) -> None:
    config = TrainConfig(max_train_steps=3)
    write_settings(tmp_path, "recipe", Path("dataset"), None, config)
    earlier, later = checkpoint(tmp_path, 4), checkpoint(tmp_path, 16)
    assert find_trained_model(tmp_path).checkpoint == later
    found = find_trained_model(earlier)
    assert (found.name, found.checkpoint, found.config) == (str(earlier), earlier, config)


def test_a_whole_model_has_no_checkpoint() -> None:
    found = find_trained_model(MODEL)
    assert (found.name, found.checkpoint, found.config) == (str(MODEL), None, None)


def test_what_is_none_of_these_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        find_trained_model(tmp_path)
    with pytest.raises(UserError, match=r"is not inside a run with a config\.json"):
        find_trained_model(checkpoint(tmp_path, 4))
    run = tmp_path / "run"
    write_settings(run, "recipe", Path("dataset"), None, TrainConfig())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        find_trained_model(run)
