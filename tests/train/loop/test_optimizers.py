"""Optimizers: each moves what learns, goes on after a stop as if there had been none, and is the library's own."""

import copy
import io
import math
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from schedulefree import AdamWScheduleFree
from torch import nn
from transformers.optimization import Adafactor

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.optimizers import Optimizer, round_stochastically
from dreamloom.train.optimizers import OPTIMIZERS

KINDS = [
    (kind.name, weights)
    for kind in OPTIMIZERS.values()
    for weights in ("fp32", "bf16")
    if weights == "fp32" or not kind.needs_all_weights
]
"""Each optimizer with each storage of weights that it can step."""


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """A matrix, a vector and a convolution in channels_last."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for shape in ((80, 60), (7,), (16, 8, 3, 3))]
    tensors[2] = tensors[2].contiguous(memory_format=torch.channels_last)
    return [nn.Parameter(tensor.to(dtype)) for tensor in tensors]


def slope(ps: list[nn.Parameter], step: int) -> None:
    """Gives gradients that change from step to step."""
    generator = torch.Generator().manual_seed(100 + step)
    for p in ps:
        p.grad = (p.detach().float() + 0.1 * torch.randn(p.shape, generator=generator)).to(p.dtype)


def optimizer(ps: list[nn.Parameter], name: str, **changes: Any) -> Optimizer:
    config = TrainConfig.model_validate(
        {"optimizer": name, "learning_rate": 1e-2, "text_encoder_learning_rate": 0, **changes}
    )
    return Optimizer([ps], [config.learning_rate], config)


@pytest.mark.parametrize(("name", "weights"), KINDS)
def test_each_goes_on_as_if_it_had_not_been_stopped(name: str, weights: str) -> None:
    if name == "adamw8bit":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed; `make install` brings it")
    dtype = torch.float32 if weights == "fp32" else torch.bfloat16
    ps = parameters(dtype)
    initial = [p.detach().clone() for p in ps]
    whole = optimizer(ps, name, weight_dtype=weights)
    for step in range(3):
        slope(ps, step)
        whole.step(1.0, step)
    assert all(p.grad is None for p in ps)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    other_ps = copy.deepcopy(ps)
    for step in range(3, 6):
        slope(ps, step)
        whole.step(0.5, step)
    resumed = optimizer(other_ps, name, weight_dtype=weights)
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    for step in range(3, 6):
        slope(other_ps, step)
        resumed.step(0.5, step)
    assert all(torch.equal(p, q) for p, q in zip(ps, other_ps, strict=True))
    assert all(bool(p.isfinite().all()) and not torch.equal(p, q) for p, q in zip(ps, initial, strict=True))


def test_adafactor_takes_a_convolution_for_a_matrix() -> None:
    (_, _, kernel), reference = parameters(), parameters()[2]
    flat = nn.Parameter(reference.detach().permute(0, 2, 3, 1).reshape(16, -1).clone())
    ours = optimizer([kernel], "adafactor")
    theirs = Adafactor([flat], lr=1e-2, weight_decay=0.01, scale_parameter=False, relative_step=False)
    for step in range(3):
        slope([kernel], step)
        assert kernel.grad is not None
        if step == 1:
            kernel.grad = kernel.grad.contiguous()  # in another order than the weights
        flat.grad = kernel.grad.permute(0, 2, 3, 1).reshape(16, -1).clone()
        ours.step(1.0, step)
        theirs.step()
    assert torch.allclose(kernel.permute(0, 2, 3, 1).reshape(16, -1), flat, atol=1e-7)
    state = next(iter(ours.inner.state.values()))
    assert state["exp_avg_sq_row"].shape == (16,) and state["exp_avg_sq_col"].shape == (72,)


def test_a_schedule_free_average_is_what_the_library_would_evaluate() -> None:
    ps, reference = parameters(), parameters()
    ours = optimizer(ps, "schedule_free")
    theirs = AdamWScheduleFree(reference, lr=1e-2, weight_decay=0.01)
    theirs.train()
    for step in range(4):
        for each in (ps, reference):
            slope(each, step)
        ours.step(1.0, step)
        theirs.step()
    means = ours.average()
    theirs.eval()
    assert means is not None
    assert all(torch.allclose(mean, p, atol=1e-6) for mean, p in zip(means, reference, strict=True))
    assert not torch.allclose(means[0], ps[0], atol=1e-4)


def test_prodigys_rate_is_the_one_that_it_found() -> None:
    ps = parameters()
    ours = optimizer(ps, "prodigy", learning_rate=1.0)
    for step in range(20):
        slope(ps, step)
        ours.step(1.0, step)
    assert 1e-6 < ours.learning_rate < 1.0


@given(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False))
def test_rounding_gives_a_neighbour_and_keeps_what_needs_none(value: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rounded = round_stochastically(torch.full((64,), value), generator)
    exact = torch.tensor(value).bfloat16()
    if float(exact) == value:
        assert (rounded == exact).all()
    else:
        low, high = sorted({float(f) for f in rounded})[0], sorted({float(f) for f in rounded})[-1]
        assert abs(high - low) <= max(abs(value) * 2**-7, 1e-38)
        assert abs(float(rounded[0]) - value) <= max(abs(value) * 2**-7, 1e-38)


def test_updates_too_small_for_bf16_arrive_on_average() -> None:
    (p,) = [nn.Parameter(torch.ones(200, 100, dtype=torch.bfloat16))]
    ours = optimizer([p], "adamw", weight_dtype="bf16", learning_rate=1e-4, weight_decay=0)
    for step in range(10):
        p.grad = torch.ones_like(p)
        ours.step(1.0, step)
    moved = float((1 - p.detach().float()).mean())
    assert moved == pytest.approx(1e-3, rel=0.1), "rounded to the nearest, nothing would have moved"
    assert math.isclose(float(torch.tensor(1 - 1e-4).bfloat16()), 1.0)


def test_8bit_adamw_goes_where_adamw_goes_with_a_quarter_of_its_state() -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed; `make install` brings it")
    start, sizes, moved = torch.full((128, 96), 0.5), [], []
    for name in ("adamw", "adamw8bit"):
        weights = nn.Parameter(start.clone())
        ours = optimizer([weights], name, learning_rate=1e-3, weight_decay=0)
        for step in range(20):
            slope([weights], step)
            ours.step(1.0, step)
        (state,) = ours.inner.state.values()
        sizes.append(sum(v.numel() * v.element_size() for v in state.values() if torch.is_tensor(v) and v.ndim))
        moved.append(weights.detach() - start)
    assert sizes[1] / start.numel() < 0.3 * sizes[0] / start.numel()
    assert float((moved[1] - moved[0]).norm() / moved[0].norm()) < 0.05


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # importing it fails, also where it is installed
    with pytest.raises(UserError, match=r"dreamloom\[bitsandbytes\]"):
        optimizer(parameters(), "adamw8bit")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "prodigy", "learning_rate": 1, "text_encoder_learning_rate": 0.5}, "one rate"),
        ({"optimizer": "schedule_free", "ema_half_life_images": 10}, "averages"),
        ({"optimizer": "schedule_free", "lr_scheduler": "cosine"}, "averages"),
        ({"optimizer": "prodigy", "weight_dtype": "bf16"}, "needs weight_dtype fp32"),
        ({"weight_dtype": "bf16", "precision": "fp32"}, "precision bf16"),
    ],
)
def test_what_does_not_go_together_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig.model_validate(changes)
