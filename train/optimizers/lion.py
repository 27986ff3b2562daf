"""Lion, which steps by the sign of its momentum (arXiv 2302.06675), as pytorch-optimizer has it."""

from typing import Any

from dreamloom.train.optimizers.kind import Betas, OptimizerKind, ParamGroups


def _make(groups: ParamGroups, betas: Betas, epsilon: float) -> Any:
    from pytorch_optimizer import Lion

    return Lion(groups, betas=betas)


LION = OptimizerKind(
    "lion",
    _make,
    state_bytes=4.0,
    betas=(0.9, 0.99),
    has_epsilon=False,
    treats_numbers_alone=True,
    help="has half of adamw's state, and wants a third to a tenth of its rate",
)
