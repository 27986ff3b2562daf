"""Prodigy, which estimates its own rate (arXiv 2306.06101)."""

import contextlib
import io
from typing import Any

from dreamloom.train.optimizers.kind import Betas, OptimizerKind, ParamGroups


def _make(groups: ParamGroups, betas: Betas, epsilon: float) -> Any:
    from prodigyopt import Prodigy

    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it decouples weight decay
        # its authors advise both switches for diffusion models
        return Prodigy(groups, betas=betas, eps=epsilon, use_bias_correction=True, safeguard_warmup=True)


PRODIGY = OptimizerKind(
    "prodigy",
    _make,
    state_bytes=16.0,
    help="estimates the learning rate",
    needs_all_weights=True,
    estimates_rate=True,
)
