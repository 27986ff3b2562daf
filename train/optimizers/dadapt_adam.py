"""Adam with D-Adaptation, which estimates its own rate (arXiv 2301.07733), as pytorch-optimizer has it.

The authors' own package, dadaptation, has had no release since 2023.
"""

from typing import Any

from dreamloom.train.optimizers.kind import Betas, OptimizerKind, ParamGroups


def _make(groups: ParamGroups, betas: Betas, epsilon: float) -> Any:
    from pytorch_optimizer import DAdaptAdam

    return DAdaptAdam(groups, betas=betas, eps=epsilon, weight_decouple=True)


DADAPT_ADAM = OptimizerKind(
    "dadapt_adam",
    _make,
    state_bytes=12.0,
    help="estimates it by D-Adaptation",
    needs_all_weights=True,
    estimates_rate=True,
)
