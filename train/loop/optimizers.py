"""The optimizers: other people's, behind one face.

    adamw           torch's, fused                                 8 bytes of state a weight
    adamw8bit       bitsandbytes', state in blocks of 8 bits       2 bytes; needs the extra `bitsandbytes`
    adafactor       transformers', without a rate of its own       next to none
    prodigy         finds its own rate (arXiv 2306.06101)          16 bytes
    schedule_free   AdamW that averages (arXiv 2405.15682)         8 bytes

Weights in bfloat16 are too coarse to be moved by a small update: each is rounded up or down by chance, so that it moves
as far as it should on average (stochastic rounding; Zamirai et al. 2020, arXiv 2010.06192).
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion.rng import stream_key

BETAS = (0.9, 0.999)
CHUNK = 32 * 2**20
"""Weights that are float32 at a time, where they are kept in bfloat16."""


class Optimizer:
    """Moves parameters along their gradients.

    Args:
        groups: the parameters that have a rate in common.
        rates: the rate of each group.

    Raises:
        UserError: the optimizer is not installed.
    """

    def __init__(self, groups: Sequence[Sequence[nn.Parameter]], rates: Sequence[float], config: TrainConfig) -> None:
        self.config = config
        self.rates = rates
        self.parameters = [parameter for group in groups for parameter in group]
        apart = config.optimizer in ("adamw8bit", "adafactor") or any(p.dtype != torch.float32 for p in self.parameters)
        self.stand_ins = [nn.Parameter(torch.empty(0, device=p.device)) for p in self.parameters] if apart else None
        turn = iter(self.stand_ins or self.parameters)
        settings = [
            {"params": [next(turn) for _ in group], "lr": rate} for group, rate in zip(groups, rates, strict=True)
        ]
        self.inner = _make(settings, config)

    @torch.no_grad()
    def step(self, factor: float, images_seen: int) -> None:
        """One step with the rates times `factor`; gradients are gone afterwards."""
        for group, rate in zip(self.inner.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        if self.stand_ins is None:
            self.inner.step()
            self.inner.zero_grad(set_to_none=True)
            return
        luck = torch.Generator(self.parameters[0].device)
        luck.manual_seed(stream_key(self.config.seed, "rounding", images_seen))
        for chunk in _chunks(self.parameters):
            self._step_chunk(self.stand_ins, chunk, luck)

    @property
    def rate(self) -> float:
        """The rate of the first group in the last step; Prodigy's is the one that it has found."""
        group = self.inner.param_groups[0]
        rate: float = group["lr"]
        return rate * group["d"] if self.config.optimizer == "prodigy" else rate

    @torch.no_grad()
    def average(self) -> list[Tensor] | None:
        """What a schedule-free optimizer would have one use in place of the parameters: x = y + (1 − 1/β₁)(z − y)."""
        if self.config.optimizer != "schedule_free":
            return None
        anchors = [self.inner.state[p].get("z", p) for p in self.parameters]
        return [p.lerp(z, 1 - 1 / BETAS[0]) for p, z in zip(self.parameters, anchors, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the parameters."""
        return dict(self.inner.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self.inner.load_state_dict(state)

    def _step_chunk(self, stand_ins: list[nn.Parameter], chunk: range, luck: torch.Generator) -> None:
        """Lends some of the stand-ins their parameters' values in float32, as matrices; the others have no gradient."""
        for place in chunk:
            parameter, stand_in = self.parameters[place], stand_ins[place]
            if parameter.grad is None:
                continue
            stand_in.data = matrix(parameter.data, parameter).float()
            stand_in.grad = matrix(parameter.grad, parameter).to(stand_in)
            parameter.grad = None
        self.inner.step()
        for place in chunk:
            parameter, stand_in = self.parameters[place], stand_ins[place]
            if parameter.dtype != torch.float32 and stand_in.grad is not None:
                matrix(parameter.data, parameter).copy_(rounded(stand_in.data, luck))
            stand_in.grad = None
            stand_in.data = torch.empty(0, device=parameter.device)


def rounded(values: Tensor, luck: torch.Generator) -> Tensor:
    """float32 → bfloat16, up or down by chance, in proportion to how near each is."""
    bits = torch.randint(0, 2**16, values.shape, generator=luck, dtype=torch.int32, device=values.device)
    return ((values.view(torch.int32) + bits) & -(2**16)).view(torch.float32).bfloat16()


def matrix(values: Tensor, like: Tensor) -> Tensor:
    """A convolution's weights [out, in, h, w], or their gradient, as a matrix [out, all else]; others as they are.

    Adafactor keeps a row and a column of a matrix: of a 3 × 3 kernel that would save next to nothing.

    Args:
        like: the parameter; its order in memory decides, so that of the parameter itself the matrix is a view.
    """
    if values.ndim != 4:
        return values
    if not like.is_contiguous():  # channels_last
        values = values.permute(0, 2, 3, 1)
    return values.reshape(len(values), -1)


def _chunks(parameters: Sequence[Tensor]) -> Iterator[range]:
    """Runs of places whose parameters have some CHUNK elements together."""
    begin = size = 0
    for place, parameter in enumerate(parameters):
        if size and size + parameter.numel() > CHUNK:
            yield range(begin, place)
            begin, size = place, 0
        size += parameter.numel()
    yield range(begin, len(parameters))


def _make(groups: list[dict[str, Any]], config: TrainConfig) -> Any:
    decay = config.weight_decay
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, betas=BETAS, weight_decay=decay, fused=True)
        case "adamw8bit":
            return _bitsandbytes().AdamW8bit(groups, betas=BETAS, weight_decay=decay)
        case "adafactor":
            from transformers.optimization import Adafactor

            return Adafactor(groups, weight_decay=decay, scale_parameter=False, relative_step=False)
        case "prodigy":
            from prodigyopt import Prodigy

            with contextlib.redirect_stdout(io.StringIO()):  # it prints that it decouples weight decay
                # the two switches are its authors' advice for diffusion models
                return Prodigy(groups, betas=BETAS, weight_decay=decay, use_bias_correction=True, safeguard_warmup=True)
        case "schedule_free":
            from schedulefree import AdamWScheduleFree

            inner = AdamWScheduleFree(groups, betas=BETAS, weight_decay=decay)
            inner.train()
            return inner


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise UserError(
            "optimizer adamw8bit needs bitsandbytes: install dreamloom[bitsandbytes], or take adafactor."
        ) from None
    return bitsandbytes.optim
