"""Going on from a finished run: to the bits of a run that was asked for at once, or as a warm start that says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.datasets import read_datasets
from dreamloom.train.loop.continuing import continue_run
from dreamloom.train.loop.loop import train
from dreamloom.train.run.folder import check_run_folder, list_checkpoints, read_settings, read_summary, run_recipe

Config = Callable[..., TrainConfig]

CONSTANT: dict[str, Any] = {"epochs": 1, "batch_size": 7, "ema_half_life_images": 4, "caption_dropout_rate": 0.3}
"""An epoch of 7 images is one step."""


@pytest.fixture(scope="module")
def short(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: str, folder: Path, heldout: Path, config: Config
) -> Path:
    run = tmp_path_factory.mktemp("continued") / "short"
    assert train(folder, run, config(base=tiny_base, **CONSTANT), heldout).finished
    return run


def longer(run: Path, target: Path, **length: Any) -> Path:
    found = continue_run(run, target, **length)
    assert train(found.folder, found.run, found.config, found.heldout).finished
    return target


def state(run: Path) -> dict[str, torch.Tensor]:
    newest = list_checkpoints(run)[-1]
    return {
        f"{file.name} {name}": value for file in newest.glob("*.safetensors") for name, value in load_file(file).items()
    }


def test_a_run_that_goes_on_ends_as_if_it_had_been_asked_for_at_once(
    short: Path, tiny_base: str, folder: Path, heldout: Path, config: Config, tmp_path: Path
) -> None:
    kept = {file: file.read_bytes() for file in short.rglob("*") if file.is_file()}
    at_once = tmp_path / "at once"
    assert train(folder, at_once, config(base=tiny_base, **{**CONSTANT, "epochs": 2}), heldout).finished
    on = longer(short, tmp_path / "on", epochs=2)
    assert state(on).keys() == state(at_once).keys()
    assert all(torch.equal(value, state(at_once)[name]) for name, value in state(on).items())
    assert read_settings(on)["recipe"] == read_settings(at_once)["recipe"]
    assert read_settings(on)["continued"]["reason"] == ""
    assert len((on / "log.jsonl").read_text().splitlines()) == len((at_once / "log.jsonl").read_text().splitlines())
    assert {file: file.read_bytes() for file in kept} == kept, "the run that it goes on from is as it was"
    assert longer(short, on, epochs=2) == on, "it is found again"


@pytest.mark.parametrize(
    ("changes", "length", "reason"),
    [
        ({"lr_scheduler": "cosine"}, {"epochs": 2}, "the learning rate follows cosine"),
        ({"batch_size": 2}, {"epochs": 2}, "the last step of a run may show fewer images"),
        ({"batch_size": 2, "max_train_steps": 1}, {"max_train_steps": 3}, "max_train_steps cut its last epoch short"),
    ],
)
def test_else_it_is_a_warm_start_that_says_why(
    changes: dict[str, Any],
    length: dict[str, Any],
    reason: str,
    tiny_base: str,
    folder: Path,
    config: Config,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    before = train(folder, run, config(base=tiny_base, **{**CONSTANT, **changes}))
    found = continue_run(run, tmp_path / "on", **length)
    assert reason in found.reason and found.begins_at <= before.images_seen
    on = longer(run, tmp_path / "on", **length)
    summary = read_summary(on)
    assert summary is not None and summary.images_seen > before.images_seen
    with pytest.raises(UserError, match="made with other images, captions, concepts or models"):
        at_once = run_recipe(*read_datasets(folder, None, found.config), found.config)
        check_run_folder(on, at_once, found.config)


def test_what_can_t_go_on_is_said(short: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has shown 7 images, and so long a run shows 7"):
        continue_run(short, tmp_path / "on", epochs=1)
    with pytest.raises(UserError, match="Name either"):
        continue_run(short, tmp_path / "on")
    with pytest.raises(UserError, match="is no training run"):
        continue_run(tmp_path, tmp_path / "on", epochs=2)
    with pytest.raises(UserError, match="exists and is another run"):
        continue_run(short, short, epochs=2)
    assert not (tmp_path / "on").exists()
