"""AdamW that averages the weights by itself, in place of a schedule (arXiv 2405.15682)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dreamloom.train.optimizers.kind import Betas, OptimizerKind, ParamGroups

if TYPE_CHECKING:
    from torch import Tensor, nn


def _make(groups: ParamGroups, betas: Betas, epsilon: float) -> Any:
    from schedulefree import AdamWScheduleFree

    optimizer = AdamWScheduleFree(groups, betas=betas, eps=epsilon)
    optimizer.train()
    return optimizer


def _average(optimizer: Any, parameters: "Sequence[nn.Parameter]") -> "list[Tensor]":
    """Computes the weights to use, x = y + (1 − 1/β₁)(z − y)."""
    beta1 = optimizer.param_groups[0]["betas"][0]
    anchors = [optimizer.state[p].get("z", p) for p in parameters]
    return [p.lerp(z, 1 - 1 / beta1) for p, z in zip(parameters, anchors, strict=True)]


SCHEDULE_FREE = OptimizerKind(
    "schedule_free",
    _make,
    state_bytes=8.0,
    help="averages the weights",
    needs_all_weights=True,
    average=_average,
)
