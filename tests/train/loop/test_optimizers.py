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
from dreamloom.train.loop.optimizers import Optimizer, lr_factor, round_stochastically
from dreamloom.train.optimizers import OPTIMIZERS

KINDS = [
    (kind.name, weights)
    for kind in OPTIMIZERS.values()
    for weights in ("fp32", "bf16")
    if weights == "fp32" or not kind.needs_all_weights
]
"""Each optimizer with each storage of weights that it can step."""
LIBRARIES = dict.fromkeys(("adamw8bit", "lion8bit"), "bitsandbytes")
LIBRARIES |= dict.fromkeys(("lion", "dadapt_adam"), "pytorch_optimizer")
TOTAL = 100
"""Images of the whole run, of which each step here is one."""


def need_library(name: str) -> None:
    """Skips the test where the optimizer's library is not installed."""
    if library := LIBRARIES.get(name):
        pytest.importorskip(library, reason=f"{library} is not installed; `make install` brings it")


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
    return Optimizer({"unet": ps}, config)


@pytest.mark.parametrize(("name", "weights"), KINDS)
def test_each_goes_on_as_if_it_had_not_been_stopped(name: str, weights: str) -> None:
    need_library(name)
    dtype = torch.float32 if weights == "fp32" else torch.bfloat16
    ps = parameters(dtype)
    initial = [p.detach().clone() for p in ps]
    schedule = {} if name == "schedule_free" else {"lr_scheduler": "cosine"}
    whole = optimizer(ps, name, weight_dtype=weights, **schedule)
    for step in range(3):
        slope(ps, step)
        whole.step(step, TOTAL)
    assert all(p.grad is None for p in ps)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    other_ps = copy.deepcopy(ps)
    for step in range(3, 6):
        slope(ps, step)
        whole.step(step, TOTAL)
    resumed = optimizer(other_ps, name, weight_dtype=weights, **schedule)
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    for step in range(3, 6):
        slope(other_ps, step)
        resumed.step(step, TOTAL)
    assert all(torch.equal(p, q) for p, q in zip(ps, other_ps, strict=True))
    assert all(bool(p.isfinite().all()) and not torch.equal(p, q) for p, q in zip(ps, initial, strict=True))


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [kind.name for kind in OPTIMIZERS.values() if kind.steps_alone])
def test_parameters_stepped_alone_get_the_same_bits(name: str, weights: str) -> None:
    dtype = torch.float32 if weights == "fp32" else torch.bfloat16
    together, alone = parameters(dtype), parameters(dtype)
    whole, parts = (optimizer(ps, name, weight_dtype=weights, lr_scheduler="cosine") for ps in (together, alone))
    for step in range(3):
        slope(together, step)
        slope(alone, step)
        whole.step(step, TOTAL)
        parts.begin(step, TOTAL)
        for index in (2, 0, 1):
            parts.step_alone(index)
            assert alone[index].grad is None
    assert all(torch.equal(p, q) for p, q in zip(together, alone, strict=True))
    states = [each.state_dict()["state"] for each in (whole, parts)]
    assert states[0].keys() == states[1].keys()


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
        ours.step(step, TOTAL)
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
        ours.step(step, TOTAL)
        theirs.step()
    means = ours.average()
    theirs.eval()
    assert means is not None
    assert all(torch.allclose(mean, p, atol=1e-6) for mean, p in zip(means, reference, strict=True))
    assert not torch.allclose(means[0], ps[0], atol=1e-4)


@pytest.mark.parametrize("name", [kind.name for kind in OPTIMIZERS.values() if kind.estimates_rate])
def test_an_estimated_rate_is_the_one_that_it_found(name: str) -> None:
    need_library(name)
    ps = parameters()
    ours = optimizer(ps, name, learning_rate=1.0)
    distance = math.sqrt(sum(float((p**2).sum()) for p in ps))  # to the least loss, of which d is a lower bound
    for step in range(20):
        slope(ps, step)
        ours.step(step, TOTAL)
    assert 1e-6 < ours.learning_rate < distance


def test_lion_steps_by_the_sign_of_its_momentum() -> None:
    """Chen et al. 2023, arXiv 2302.06675, algorithm 2, with the betas that it names."""
    need_library("lion")
    (p,), reference = [parameters()[0]], parameters()[0].detach().clone()
    ours, momentum = optimizer([p], "lion", learning_rate=1e-3, weight_decay=0.1), torch.zeros_like(reference)
    for step in range(4):
        slope([p], step)
        assert p.grad is not None
        gradient = p.grad.clone()
        ours.step(step, TOTAL)
        reference -= 1e-3 * ((0.9 * momentum + 0.1 * gradient).sign() + 0.1 * reference)
        momentum = 0.99 * momentum + 0.01 * gradient
    assert torch.allclose(p, reference, atol=1e-6)


def test_betas_epsilon_and_each_parts_decay_are_torchs() -> None:
    (unet, text), (theirs, others) = ([parameters()[0], parameters()[1]] for _ in range(2))
    settings = {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3, "weight_decay": 0.5, "text_encoder_weight_decay": 0.0}
    config = TrainConfig(learning_rate=1e-2, text_encoder_learning_rate=1e-3, **settings)  # type: ignore[arg-type]
    ours = Optimizer({"unet": [unet], "text_encoder": [text]}, config)
    groups = [{"params": [theirs], "lr": 1e-2, "weight_decay": 0.5}, {"params": [others], "lr": 1e-3}]
    reference = torch.optim.AdamW(groups, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.0, fused=True)
    for step in range(4):
        slope([unet, text], step)
        slope([theirs, others], step)
        ours.step(step, TOTAL)
        reference.step()
    assert torch.equal(unet, theirs) and torch.equal(text, others)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("constant", {}),
        ("linear", {}),
        ("cosine", {}),
        ("cosine_with_restarts", {"num_cycles": 3}),
        ("polynomial", {"power": 2.0, "lr_end": 0.0}),
    ],
)
def test_schedules_are_those_of_diffusers(name: str, settings: dict[str, Any]) -> None:
    """The text encoder's own, beside a UNet at a constant rate."""
    from diffusers import optimization

    steps = {} if name == "constant" else {"num_warmup_steps": 0, "num_training_steps": 12}
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = optimization.TYPE_TO_SCHEDULER_FUNCTION[optimization.SchedulerType(name)](dummy, **steps, **settings)
    ours = {f"lr_scheduler_{key}": value for key, value in settings.items() if key != "lr_end"}
    config = TrainConfig.model_validate({"text_encoder_lr_scheduler": name, "batch_size": 5, **ours})
    for step in range(13):
        rate = lr_factor(config, "text_encoder", 5 * step, step / 12)
        assert rate == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        assert lr_factor(config, "unet", 5 * step, step / 12) == 1
        dummy.step()
        theirs.step()


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
        ours.step(step, TOTAL)
    moved = float((1 - p.detach().float()).mean())
    assert moved == pytest.approx(1e-3, rel=0.1), "rounded to the nearest, nothing would have moved"
    assert math.isclose(float(torch.tensor(1 - 1e-4).bfloat16()), 1.0)
    share = 1 - (1 - 1e-4 / 2**-8) ** 10
    assert float((p.detach() < 1).float().mean()) == pytest.approx(share, rel=0.1), "each step has luck of its own"


def test_bf16_is_rounded_with_other_luck_at_each_step_and_with_each_seed() -> None:
    moved = []
    for step, seed in ((0, 0), (1, 0), (0, 1), (0, 0)):
        p = nn.Parameter(torch.ones(200, 100, dtype=torch.bfloat16))
        p.grad = torch.ones_like(p)
        optimizer([p], "adamw", weight_dtype="bf16", learning_rate=1e-3, weight_decay=0, seed=seed).step(step, TOTAL)
        moved.append(p.detach() != 1)
    assert torch.equal(moved[0], moved[3])
    for other in moved[1:3]:
        both = (moved[0] & other).float().mean() / moved[0].float().mean()
        assert abs(both - other.float().mean()) < 0.1, "as likely to move as any weight"


@pytest.mark.parametrize(("names", "apart"), [(("adamw", "adamw8bit"), 0.05), (("lion", "lion8bit"), 0.3)])
def test_8_bits_go_where_32_go_with_a_quarter_of_the_state(names: tuple[str, str], apart: float) -> None:
    start, sizes, moved = torch.full((128, 96), 0.5), [], []
    for name in names:
        need_library(name)
        weights = nn.Parameter(start.clone())
        ours = optimizer([weights], name, learning_rate=1e-3, weight_decay=0)
        for step in range(20):
            slope([weights], step)
            ours.step(step, TOTAL)
        (state,) = ours.inner.state.values()
        sizes.append(sum(v.numel() * v.element_size() for v in state.values() if torch.is_tensor(v) and v.ndim))
        moved.append(weights.detach() - start)
    assert sizes[1] / start.numel() < 0.3 * sizes[0] / start.numel()
    assert float((moved[1] - moved[0]).norm() / moved[0].norm()) < apart


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # importing it fails, also where it is installed
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        optimizer(parameters(), "adamw8bit")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "prodigy", "learning_rate": 1, "text_encoder_learning_rate": 0.5}, "one rate"),
        ({"optimizer": "dadapt_adam", "text_encoder_lr_scheduler": "linear"}, "one rate"),
        ({"optimizer": "adafactor", "beta2": 0.9}, "no beta2"),
        ({"optimizer": "lion", "epsilon": 0.1}, "no epsilon"),
        ({"optimizer": "schedule_free", "text_encoder_lr_scheduler": "cosine"}, "averages"),
        ({"optimizer": "schedule_free", "ema_half_life_images": 10}, "averages"),
        ({"optimizer": "schedule_free", "lr_scheduler": "cosine"}, "averages"),
        ({"optimizer": "prodigy", "weight_dtype": "bf16"}, "needs weight_dtype fp32"),
        ({"weight_dtype": "bf16", "precision": "fp32"}, "precision bf16"),
    ],
)
def test_what_does_not_go_together_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig.model_validate(changes)
