"""AdamW of bitsandbytes, with its state in blocks of 8 bits."""

from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.train.optimizers.kind import Betas, OptimizerKind, ParamGroups


def _make(groups: ParamGroups, betas: Betas, epsilon: float) -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise UserError(
            "optimizer adamw8bit needs bitsandbytes; pip install bitsandbytes, or choose adafactor."
        ) from None
    return bitsandbytes.optim.AdamW8bit(groups, betas=betas, eps=epsilon)


ADAMW8BIT = OptimizerKind(
    "adamw8bit", _make, state_bytes=2.1, help="saves memory (needs the extra bitsandbytes)", takes_matrices=True
)
