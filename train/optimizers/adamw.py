"""AdamW, torch's own, fused."""

from typing import Any

from dreamloom.train.optimizers.kind import Betas, OptimizerKind, ParamGroups


def _make(groups: ParamGroups, betas: Betas, epsilon: float) -> Any:
    import torch

    return torch.optim.AdamW(groups, betas=betas, eps=epsilon, fused=True)


ADAMW = OptimizerKind("adamw", _make, state_bytes=8.0, steps_alone=True, treats_numbers_alone=True)
