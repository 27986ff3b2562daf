"""The training loop of the demo's models: seeded by step, resumable after a kill, with a loss curve."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamloom.base.files.atomic import commit, commit_text
from dreamloom.base.models.device import choose_precision
from dreamloom.base.progress import Progress, silent


@dataclass(frozen=True)
class Schedule:
    """The settings of one model's training."""

    steps: int
    batch: int
    rate: float
    """Peak learning rate. It warms up over a twentieth of the steps, then falls to 0 along a cosine."""
    decay: float = 0.01
    """AdamW's weight decay."""
    average: float = 0.998
    """Decay of the moving average of the weights, which is the shipped model."""
    every: int = 50
    """Steps per row of the curve."""
    save_seconds: float = 60.0
    """Minimum seconds between checkpoints, which are written at the end of a row."""


def fit(
    name: str,
    modules: Mapping[str, nn.Module],
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    work: Path,
    seed: int,
    progress: Progress = silent,
) -> list[tuple[int, float]]:
    """Trains `modules` in place, and leaves the moving average of their weights in them.

    `loss(step)` has to draw all random numbers from torch's global generators, which are seeded by (seed, step). So a
    killed run continues from `work/<name>.pt` with the same result.

    Returns:
        The curve: (step, mean loss since the previous row), also written to `work/<name>.csv`.
    """
    parts = nn.ModuleDict(modules)
    average = copy.deepcopy(parts).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        parts.parameters(), schedule.rate, betas=(0.9, 0.99), weight_decay=schedule.decay, fused=True
    )
    state = work / f"{name}.pt"
    step, curve = _resume(state, parts, average, optimizer)
    losses: list[Tensor] = []
    saved = time.monotonic()
    while step < schedule.steps:
        torch.manual_seed(seed * 1_000_003 + step)
        losses.append(_step(parts, loss(step), optimizer, _rate(schedule, step)))
        step += 1
        with torch.no_grad():
            _follow(average, parts, min(schedule.average, (1 + step) / (10 + step)))
        if step % schedule.every == 0 or step == schedule.steps:
            curve.append((step, float(torch.stack(losses).mean())))
            losses = []
            progress(step, schedule.steps, f"{name}: loss {curve[-1][1]:.4f}")
            if time.monotonic() - saved > schedule.save_seconds or step == schedule.steps:
                _save(state, step, curve, parts, average, optimizer)
                saved = time.monotonic()
    parts.load_state_dict(average.state_dict())
    parts.eval()
    commit_text(work / f"{name}.csv", "step,loss\n" + "".join(f"{s},{value:.6f}\n" for s, value in curve))
    return curve


def _step(parts: nn.ModuleDict, loss: Tensor, optimizer: torch.optim.Optimizer, rate: float) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss.detach()


def _rate(schedule: Schedule, step: int) -> float:
    warm = max(1, schedule.steps // 20)
    if step < warm:
        return schedule.rate * (step + 1) / warm
    return schedule.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, schedule.steps - warm)))


def _follow(average: nn.Module, parts: nn.Module, keep: float) -> None:
    there: list[Tensor] = list(average.parameters())
    torch._foreach_lerp_(there, [p.detach() for p in parts.parameters()], 1 - keep)
    for to, value in zip(average.buffers(), parts.buffers(), strict=True):
        to.copy_(value)


def _resume(
    state: Path, parts: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[tuple[int, float]]]:
    parts.train()
    if not state.exists():
        return 0, []
    saved: dict[str, Any] = torch.load(state, map_location="cpu", weights_only=True)
    parts.load_state_dict(saved["parts"])
    average.load_state_dict(saved["average"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"], saved["curve"]


def _save(
    state: Path,
    step: int,
    curve: list[tuple[int, float]],
    parts: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    with commit(state) as temporary:
        torch.save(
            {
                "step": step,
                "curve": curve,
                "parts": parts.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            temporary,
        )


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the weights of modules that are created in the block."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def half_where_fast() -> torch.autocast:
    """Autocasts to bfloat16 on GPUs and processors that have it, where a transformer trains in half the time."""
    precision = choose_precision("auto", device(), bf16_on_cpu=True)
    return torch.autocast(device().type, torch.bfloat16, enabled=precision == torch.bfloat16)


def device() -> torch.device:
    """Returns the first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
