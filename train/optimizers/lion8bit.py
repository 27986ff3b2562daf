"""Lion of bitsandbytes, with its state in blocks of 8 bits."""

from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.train.optimizers.kind import Betas, OptimizerKind, ParamGroups


def _make(groups: ParamGroups, betas: Betas, epsilon: float) -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise UserError("optimizer lion8bit needs bitsandbytes; pip install bitsandbytes, or choose lion.") from None
    return bitsandbytes.optim.Lion8bit(groups, betas=betas)


LION8BIT = OptimizerKind(
    "lion8bit",
    _make,
    state_bytes=1.05,
    betas=(0.9, 0.99),
    has_epsilon=False,
    help="is lion in 8 bits (needs the extra bitsandbytes)",
    takes_matrices=True,
)
