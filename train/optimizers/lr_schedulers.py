"""Learning rate schedules: functions of how far a run is.

So a resumed run has the same rates. A new schedule is a function and a line in LR_SCHEDULERS. At each step they equal
those of diffusers.optimization without a warm-up.
"""

import math
from collections.abc import Callable, Mapping

LRScheduler = Callable[[float, int, float], float]
"""Computes the factor of the rate from the share of the run that is done, in [0, 1]; from cycles; and from a power."""


def _constant(progress: float, num_cycles: int, power: float) -> float:
    return 1.0


def _linear(progress: float, num_cycles: int, power: float) -> float:
    return 1 - progress


def _cosine(progress: float, num_cycles: int, power: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _cosine_with_restarts(progress: float, num_cycles: int, power: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * (num_cycles * progress % 1))) if progress < 1 else 0.0


def _polynomial(progress: float, num_cycles: int, power: float) -> float:
    return math.pow(1 - progress, power)


LR_SCHEDULERS: Mapping[str, LRScheduler] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": _polynomial,
}
"""TrainConfig.lr_scheduler → the schedule."""
