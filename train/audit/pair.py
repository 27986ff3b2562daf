"""The two models of an audit, loaded side by side, and what they predict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

import torch
from torch import Tensor

from dreamloom.base.errors import UserError
from dreamloom.base.models.device import choose_precision
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.model.device import autocast, choose_device
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Condition
from dreamloom.train.run.find import TrainedModel


@dataclass(frozen=True)
class Pair:
    """A base model and one that comes from it. They share the base's VAE."""

    base: Model
    model: Model
    precision: torch.dtype


def load_pair(trained: TrainedModel, base: str, config: AuditConfig) -> Pair:
    """Loads both models.

    Raises:
        UserError: a model can't be loaded, or the two are not of one family.
    """
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    before = trained.load_base(base, device, config.precision, None, config.clip_skip, config.t5_length)
    start = before  # a checkpoint overwrites it
    if trained.checkpoint is not None:
        start = trained.load_base(base, device, config.precision)
    after = trained.load(start, config.use_ema)
    _check_family(before, after, base, trained.name)
    return Pair(before, replace(after, components={**after.components, "vae": before.vae}), precision)


@torch.no_grad()
def encode_prompts(model: Model, prompts: Sequence[str], side: int, precision: torch.dtype) -> Condition:
    """Computes what the denoiser is given of prompts, in float32.

    Args:
        model: the model.
        prompts: n prompts.
        side: of the images, in pixels.
        precision: of the computation.
    """
    sizes = torch.tensor([[side, side, 0, 0, side, side]] * len(prompts), dtype=torch.float32, device=model.device)
    with autocast(model.device, precision):
        text = model.tokenize(list(prompts)).map(lambda each: each.to(model.device))
        return model.encode(text, sizes).map(Tensor.float)


@torch.no_grad()
def predict(
    model: Model, noisy: Tensor, timesteps: Tensor, condition: Condition, precision: torch.dtype, batch_size: int
) -> Tensor:
    """Computes a model's predictions, float32 [n, C, h, w], so many at a time.

    Args:
        model: the model.
        noisy: noisy latents, [n, C, h, w].
        timesteps: [n].
        condition: of n prompts, which may be expanded.
        precision: of the computation.
        batch_size: the most that are computed at a time.
    """
    parts = []
    with autocast(model.device, precision):
        for start in range(0, len(noisy), batch_size):
            part = slice(start, start + batch_size)
            inputs = noisy[part].contiguous(memory_format=torch.channels_last)
            parts.append(model.predict(inputs, timesteps[part], condition.map(itemgetter(part))).float())
    return torch.cat(parts)


def add_noise_at(model: Model, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Returns noisy latents, and what a model should predict of them, each [n, C, h, w]."""
    schedule = model.schedule
    return schedule.add_noise(latents, noise, timesteps), schedule.target(latents, noise, timesteps)


def spread_timesteps(model: Model, levels: int, shift: float = 0.5, share: float = 1.0) -> Tensor:
    """Returns a timestep in each of so many equal parts of a model's schedule, [levels], on its device.

    Args:
        model: the model.
        levels: how many.
        shift: where in its part each lies, from 0 to 1.
        share: of the schedule, from its noisy end.
    """
    places = [1 - share + share * (level + shift) / levels for level in range(levels)]
    return model.schedule.timesteps([model.schedule.spread(0, 1, place) for place in places])


def _check_family(base: Model, model: Model, base_name: str, name: str) -> None:
    if model.prediction_type != base.prediction_type:
        raise UserError(
            f"{base_name} predicts {base.prediction_type} and {name} predicts {model.prediction_type}, so they can't "
            "be compared; name the base model that was trained."
        )
    shapes = [{key: value.shape for key, value in each.denoiser.state_dict().items()} for each in (base, model)]
    if shapes[0].items() - shapes[1].items():
        raise UserError(
            f"{base_name} and {name} are not of one kind: their denoisers differ; name the model's own base."
        )
