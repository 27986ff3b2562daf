"""The average of the weights: its half-life, diffusers' warm-up, intervals."""

from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.average import Average, swap


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("ramp", {}), ("power", {"use_ema_warmup": True, "inv_gamma": 1.0, "power": 2 / 3})],
)
@pytest.mark.parametrize("every", [1, 3])
def test_the_warm_up_is_diffusers(ours: str, theirs: dict[str, Any], every: int) -> None:
    """EMAModel, stepped at each update, with the decay of our half-life: 0.5^(images / half-life)."""
    weights = [nn.Parameter(torch.zeros(5)), nn.Parameter(torch.ones(3, 2))]
    config = TrainConfig.model_validate(
        {"ema_half_life_images": 40, "ema_warmup": ours, "batch_size": 2, "ema_update_every_n_steps": every}
    )
    average, reference = Average(weights, config), EMAModel(weights, decay=0.5 ** (2 * every / 40), **theirs)
    for step in range(1, 61):
        for number, weight in enumerate(weights):
            weight.data = torch.full_like(weight, step**0.5 + number)
        average.update(step, 2 * step)
        if step % every == 0:
            reference.step(weights)
        for mean, shadow in zip(average.means, reference.shadow_params, strict=True):
            assert torch.allclose(mean, shadow, rtol=1e-5)


def test_an_average_at_intervals_has_the_same_half_life() -> None:
    weight = nn.Parameter(torch.zeros(1))
    averages = [
        Average([weight], TrainConfig(ema_half_life_images=8, batch_size=2, ema_update_every_n_steps=every))
        for every in (1, 4)
    ]
    weight.data.fill_(1.0)
    for step in range(1, 9):
        for average in averages:
            average.update(step, 2 * step)
    assert [float(average.means[0]) for average in averages] == pytest.approx([0.75, 0.75])


def test_weights_and_average_change_places_and_back() -> None:
    weights = [nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))]
    average = Average(weights, TrainConfig(ema_half_life_images=8, ema_on_cpu=True, weight_dtype="bf16"))
    average.means[0].fill_(1 / 3)
    swap(weights, average.means)
    assert torch.equal(weights[0], torch.full((4,), 1 / 3)), "in float32, as it is kept"
    swap(weights, average.means)
    assert weights[0].dtype == torch.bfloat16 and not weights[0].any()
