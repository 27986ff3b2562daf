"""Adafactor of transformers, without a rate of its own; its state is a row and a column of each matrix."""

from typing import Any

from dreamloom.train.optimizers.kind import Betas, OptimizerKind, ParamGroups


def _make(groups: ParamGroups, betas: Betas, epsilon: float) -> Any:
    from transformers.optimization import Adafactor

    return Adafactor(groups, scale_parameter=False, relative_step=False)


ADAFACTOR = OptimizerKind(
    "adafactor",
    _make,
    state_bytes=0.1,
    betas=None,
    has_epsilon=False,
    help="saves more memory",
    takes_matrices=True,
    steps_alone=True,
)
