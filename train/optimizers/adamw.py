"""AdamW, torch's own, fused."""

from typing import Any

from dreamloom.train.optimizers.kind import BETAS, OptimizerKind, ParamGroups


def _make(groups: ParamGroups, weight_decay: float) -> Any:
    import torch

    return torch.optim.AdamW(groups, betas=BETAS, weight_decay=weight_decay, fused=True)


ADAMW = OptimizerKind("adamw", _make, state_bytes=8.0)
