"""Scales the loss, so that gradients too small for float16 survive, and tells which steps to skip as it was too much.

The rule and its constants are those of torch.amp.GradScaler (Micikevicius et al. 2018, arXiv 1710.03740). This one has
two numbers of state, works with optimizers that get copies of the weights, and does not hide a gradient that is not a
number at any scale.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

INITIAL_SCALE = 2.0**16
GROWTH_INTERVAL = 2000
"""Steps without an overflow after which the scale doubles."""


class GradScaler:
    """The factor of the loss. In other precisions than float16 it is 1, and no step is skipped.

    All processes of a group come to the same decisions, as their gradients are averaged before.

    Args:
        precision: of the arithmetic.
    """

    def __init__(self, precision: torch.dtype) -> None:
        self.is_enabled = precision == torch.float16
        self.scale = INITIAL_SCALE if self.is_enabled else 1.0
        self.steps_since_change = 0

    @torch.no_grad()
    def unscale(self, parameters: Iterable[Tensor]) -> None:
        """Divides the gradients by the scale; that is exact, as it is a power of two."""
        if self.is_enabled:
            torch._foreach_div_([p.grad for p in parameters if p.grad is not None], self.scale)

    def accepts(self, gradient_norm: Tensor) -> bool:
        """Tells whether the step can be taken, and adapts the scale; in float16 it waits for the device.

        A gradient that is not finite at the scale 1 is not the scale's fault, and is left to the loss window to report.

        Args:
            gradient_norm: norm of the unscaled gradients.
        """
        if not self.is_enabled:
            return True
        if not math.isfinite(gradient_norm):
            was_scaled = self.scale > 1
            self.scale, self.steps_since_change = max(self.scale / 2, 1.0), 0
            return not was_scaled
        self.steps_since_change += 1
        if self.steps_since_change == GROWTH_INTERVAL:
            self.scale, self.steps_since_change = self.scale * 2, 0
        return True

    def state_dict(self) -> dict[str, float]:
        """Returns the state, as numbers for JSON; empty where there is none."""
        return {"scale": self.scale, "steps_since_change": self.steps_since_change} if self.is_enabled else {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Takes over what `state_dict` returned."""
        if self.is_enabled:
            self.scale, self.steps_since_change = state["scale"], int(state["steps_since_change"])
