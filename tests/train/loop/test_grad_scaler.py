"""The gradient scaler does what torch's does, and a step in float16 that overflows is skipped, not lost track of."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.loop import grad_scaler
from dreamloom.train.loop.grad_scaler import GradScaler
from dreamloom.train.loop.loop import train
from dreamloom.train.run.folder import list_checkpoints

Config = Callable[..., TrainConfig]
FINITE, INFINITE = torch.tensor(2.0), torch.tensor(math.inf)


def test_the_constants_are_those_of_torch() -> None:
    theirs = torch.amp.GradScaler("cpu")
    assert (theirs.get_scale(), theirs.get_growth_interval()) == (
        grad_scaler.INITIAL_SCALE,
        grad_scaler.GROWTH_INTERVAL,
    )


@given(st.lists(st.integers(1, 45), min_size=1, max_size=5))
def test_the_scale_is_that_of_torch(steps_between: list[int]) -> None:
    """Overflows with so many good steps between them, where 20 good steps double the scale."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grad_scaler, "GROWTH_INTERVAL", 20)
        check_against_torch(steps_between)


def check_against_torch(steps_between: list[int]) -> None:
    ours, theirs = GradScaler(torch.float16), torch.amp.GradScaler("cpu", growth_interval=20)
    theirs.scale(torch.zeros(1))
    optimizer = torch.optim.SGD([weight := nn.Parameter(torch.zeros(1))], lr=0)
    for good_steps in steps_between:
        for gradient in [*[FINITE] * good_steps, INFINITE]:
            weight.grad = gradient[None].clone()
            theirs.step(optimizer)
            theirs.update()
            assert ours.accepts(gradient) == bool(gradient.isfinite())
        assert ours.scale == theirs.get_scale()
    again = GradScaler(torch.float16)
    again.load_state_dict(json.loads(json.dumps(ours.state_dict())))
    assert vars(again) == vars(ours)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_other_precisions_have_none(precision: torch.dtype) -> None:
    scaler = GradScaler(precision)
    assert scaler.accepts(INFINITE) and scaler.scale == 1 and scaler.state_dict() == {}


def test_gradients_get_back_their_size_exactly() -> None:
    scaler = GradScaler(torch.float16)
    parameters = [nn.Parameter(torch.zeros(50)), nn.Parameter(torch.zeros(2))]
    gradient = torch.randn(50, generator=torch.Generator().manual_seed(0))
    parameters[0].grad = gradient * scaler.scale
    scaler.unscale(parameters)
    assert torch.equal(parameters[0].grad, gradient) and parameters[1].grad is None


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_steps_that_overflow_are_skipped_and_the_run_goes_on(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grad_scaler, "INITIAL_SCALE", 2.0**21)
    assert train(folder, tmp_path / "run", config(base=tiny_base, precision="fp16", epochs=4)).finished
    steps = records(tmp_path / "run")
    skipped = [step for step in steps if step["gradient"] is None]
    assert skipped == steps[: len(skipped)] and 1 <= len(skipped) < len(steps) / 2
    assert [step["images_seen"] for step in steps[:-1]] == list(range(2, 2 * len(steps), 2)), (
        "their images count as seen"
    )
    checkpoint = list_checkpoints(tmp_path / "run")[-1]
    state = json.loads((checkpoint / "state.json").read_text())
    assert state["scaler"] == {
        "scale": 2.0 ** (21 - len(skipped)),
        "steps_since_change": len(steps) - len(skipped),
    }
    optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    assert {int(each["step"]) for each in optimizer["state"].values()} == {len(steps) - len(skipped)}
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_float16_learns_what_float32_does(tiny_base: str, folder: Path, tmp_path: Path, config: Config) -> None:
    for precision in ("fp16", "fp32"):
        train(folder, tmp_path / precision, config(base=tiny_base, precision=precision, max_train_steps=4))
    for half, full in zip(records(tmp_path / "fp16"), records(tmp_path / "fp32"), strict=True):
        assert half["loss"] == pytest.approx(full["loss"], rel=0.02)
        assert half["gradient"] == pytest.approx(full["gradient"], rel=0.05)


@pytest.mark.parametrize("where", ["predict", "scale"])
def test_what_no_scale_can_mend_ends_the_run(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A loss that is not a number; or gradients that are not, at any scale, as those of a loss of 1e38 are."""
    from dreamloom.train.loop.trainer import Trainer

    factor = math.nan if where == "predict" else 1e38
    loss = Trainer.loss
    monkeypatch.setattr(Trainer, "loss", lambda self, batch: loss(self, batch) * factor)
    with pytest.raises(UserError, match="is not a number at step"):
        train(
            folder, tmp_path / "run", config(base=tiny_base, precision="fp16", epochs=6, checkpoint_every_n_steps=100)
        )
    assert not list_checkpoints(tmp_path / "run")
