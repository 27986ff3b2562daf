"""The exponential moving average of the trained weights (EMA)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dreamloom.train.config import TrainConfig


class Average:
    """An average that moves half of the way to the weights in `ema_half_life_images` images.

    Args:
        parameters: the trained weights, from which it starts.
        config: how fast it moves, how often, and where it is kept.
    """

    def __init__(self, parameters: Sequence[Tensor], config: TrainConfig) -> None:
        self.parameters = list(parameters)
        self.config = config
        self.step_size = config.batch_size * config.gradient_accumulation_steps
        device = torch.device("cpu") if config.ema_on_cpu else parameters[0].device
        self.means = [p.detach().to(device, torch.float32, copy=True) for p in parameters]

    @torch.no_grad()
    def update(self, num_steps: int, images_seen: int) -> None:
        """Moves the average after a step, if it is the turn of this step.

        Args:
            num_steps: optimizer steps so far.
            images_seen: images so far; the last step of a run may have fewer.
        """
        every = self.config.ema_update_every_n_steps
        if num_steps % every:
            return
        assert self.config.ema_half_life_images is not None
        images = images_seen - (num_steps - every) * self.step_size
        decay = 0.5 ** (images / self.config.ema_half_life_images)
        if self.config.ema_warmup != "none":
            decay = min(decay, _warmup_decay(self.config.ema_warmup, num_steps // every - 1))
        if self.config.weight_dtype == "fp32" and not self.config.ema_on_cpu:
            torch._foreach_lerp_(self.means, self.parameters, 1 - decay)
            return
        for mean, parameter in zip(self.means, self.parameters, strict=True):
            mean.lerp_(parameter.to(mean.device, torch.float32), 1 - decay)


def swap(parameters: Sequence[Tensor], means: Sequence[Tensor]) -> None:
    """Exchanges the values of parameters and averages, which may lie on another device."""
    for parameter, mean in zip(parameters, means, strict=True):
        parameter.data, mean.data = mean.data.to(parameter.device), parameter.data.to(mean.device)


@contextmanager
def in_float32(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Holds parameters in float32 during the block, and afterwards as before, which loses nothing."""
    dtypes = [parameter.dtype for parameter in parameters]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in zip(parameters, dtypes, strict=True):
            parameter.data = parameter.data.to(dtype)


def _warmup_decay(warmup: str, updates: int) -> float:
    """Computes the greatest decay of an average after so many updates, as diffusers' EMAModel has it.

    Args:
        warmup: "ramp": (1 + n)/(10 + n), as in diffusers' training scripts; "power": 1 − (1 + n)^(−⅔), its
            `use_ema_warmup`.
        updates: n, those before this one; the first takes over the weights.
    """
    if updates <= 0:
        return 0.0
    return (1 + updates) / (10 + updates) if warmup == "ramp" else 1 - math.pow(1 + updates, -2 / 3)
