"""Computes learned and forgotten from the losses of two models.

`learned` is by how much the loss on held-out training images fell against the base model. `forgotten` is by how much
the loss on held-out ground truth rose.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dreamloom.base import html

Losses = dict[str, float]
"""Name of a held-out image → its mean loss over the timesteps."""


@dataclass(frozen=True)
class Measure:
    """Change of the mean loss from the base model to the trained one."""

    change: float
    """learned: 1 − now/base. forgotten: now/base − 1."""
    error: float | None
    """Standard error of `change` over the images; None for a single image."""
    base: float
    """Mean loss of the base model."""
    now: float
    """Mean loss of the trained model."""
    images: int
    """Number of images."""

    def __str__(self) -> str:
        """Returns a text such as "12.3 ± 0.8 %"."""
        error = "" if self.error is None else f" ± {100 * self.error:.1f}"
        return f"{100 * self.change:.1f}{error} %"


@dataclass(frozen=True)
class Evaluation:
    """What a model learned and forgot."""

    learned: Measure | None
    """None if no training images are held out."""
    forgotten: Measure | None
    """None if no ground truth is held out."""
    base: dict[str, Losses]
    """Kind → losses of the base model."""
    now: dict[str, Losses]
    """Kind → losses of the trained model."""
    problems: tuple[str, ...] = ()
    """Held-out images that could not be evaluated, each with the reason."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the evaluation as JSON types."""
        return asdict(self)

    def _repr_html_(self) -> str:
        measures = {"learned": self.learned, "forgotten": self.forgotten}
        rows = [
            {
                "measure": name,
                "of the base model's loss": str(measure),
                "base model": measure.base,
                "now": measure.now,
                "images": measure.images,
            }
            for name, measure in measures.items()
            if measure is not None
        ]
        return html.table(rows) or "<p>Nothing is held out, so nothing was measured.</p>"


def measure_all(base: Mapping[str, Losses], now: Mapping[str, Losses]) -> tuple[Measure | None, Measure | None]:
    """Returns learned and forgotten, from the losses by kind."""
    learned = measure(base["training"], now["training"], sign=-1) if "training" in base else None
    forgotten = measure(base["ground_truth"], now["ground_truth"], sign=1) if "ground_truth" in base else None
    return learned, forgotten


def measure(base: Losses, now: Losses, sign: int) -> Measure | None:
    """Computes sign · (mean now / mean base − 1) and its standard error; None without images.

    The error follows from linearizing the ratio of two means (Cochran 1977, "Sampling techniques", section 2.11).
    """
    names = sorted(base)
    count = len(names)
    if not count:
        return None
    mean_base, mean_now = sum(base[name] for name in names) / count, sum(now[name] for name in names) / count
    ratio = mean_now / mean_base
    error = None
    if count > 1:
        squares = sum((now[name] - ratio * base[name]) ** 2 for name in names)
        error = math.sqrt(squares / (count - 1) / count) / mean_base
    change = sign * (ratio - 1) + 0.0  # never −0
    return Measure(change, error, mean_base, mean_now, count)
