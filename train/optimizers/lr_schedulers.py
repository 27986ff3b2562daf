"""Learning rate schedules: functions of the images seen and of the images of the whole run.

So a resumed run has the same rates. A new schedule is a function and a line in LR_SCHEDULERS.
"""

import math
from collections.abc import Callable, Mapping


def _constant(images_seen: int, total_images: int) -> float:
    return 1.0


def _cosine(images_seen: int, total_images: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * images_seen / total_images))


LR_SCHEDULERS: Mapping[str, Callable[[int, int], float]] = {"constant": _constant, "cosine": _cosine}
"""TrainConfig.lr_scheduler → factor of the learning rates."""
