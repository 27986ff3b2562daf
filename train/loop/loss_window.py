"""Keeps the losses of the latest steps on the device until they are logged."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepRecord:
    """An optimizer step, as it is logged."""

    step: int
    """Number of the step, from 1."""
    images_seen: int
    """Images seen after the step."""
    loss: float
    """Mean over the step's images."""
    gradient: float | None
    """Norm over all parameters, before clipping. None: it overflowed float16, and the step was skipped."""
    rate: float
    """The UNet's learning rate."""


class NonFiniteLossError(Exception):
    """A loss or a gradient is infinite or NaN, for the first time in this step."""

    def __init__(self, step: int) -> None:
        super().__init__(f"step {step}: the loss is not finite")
        self.step = step


class LossWindow:
    """Collects steps without waiting for the device."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.steps: list[tuple[int, int, float, bool]] = []

    def add(self, step: int, images_seen: int, rate: float, loss: Tensor, gradient: Tensor | None) -> None:
        """Adds a step; loss and gradient are scalars on the device, and a step without gradient was skipped."""
        self.values.append(torch.stack([loss.float(), loss.float() if gradient is None else gradient.float()]))
        self.steps.append((step, images_seen, rate, gradient is None))

    def take(self) -> list[StepRecord]:
        """Returns the steps since the last call; waits for the device.

        Raises:
            NonFiniteLossError: a loss or gradient is not finite.
        """
        numbers = torch.stack(self.values).tolist() if self.values else []
        records = []
        for (step, images_seen, rate, is_skipped), (loss, gradient) in zip(self.steps, numbers, strict=True):
            if not (math.isfinite(loss) and math.isfinite(gradient)):
                raise NonFiniteLossError(step)
            records.append(StepRecord(step, images_seen, loss, None if is_skipped else gradient, rate))
        self.values, self.steps = [], []
        return records
