"""Selects the parameters of a model that are trained: all weights, some of them, or adapters."""

from fnmatch import fnmatchcase

import torch
from torch import nn

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.lora import add_adapters, is_adapter
from dreamloom.train.model.model import Model

NamedParameters = dict[str, nn.Parameter]


def trainable_parameters(model: Model, config: TrainConfig) -> dict[str, NamedParameters]:
    """Selects the parameters to train, and makes them require gradients; adds adapters where the config wants them.

    Returns:
        Component (unet, text_encoder) → name such as unet.conv_in.weight → parameter.

    Raises:
        UserError: a pattern of `frozen` matches no name, or nothing is left to train.
    """
    parts = ["unet", "text_encoder"] if config.text_encoder_learning_rate > 0 else ["unet"]
    if config.weight_dtype == "bf16":
        for part in ("unet", "text_encoder"):
            getattr(model, part).to(torch.bfloat16)
    if config.lora_rank is not None:
        add_adapters(model, config)
    for part in parts:
        for name, parameter in getattr(model, part).named_parameters():
            parameter.requires_grad_(config.lora_rank is None or is_adapter(name))
    candidates = {part: _of_part(model, part) for part in parts}
    _freeze(candidates, config.frozen)
    trained = {part: {n: p for n, p in named.items() if p.requires_grad} for part, named in candidates.items()}
    if not any(trained.values()):
        raise UserError("frozen leaves nothing to train; remove a pattern.")
    return {part: named for part, named in trained.items() if named}


def _of_part(model: Model, part: str) -> NamedParameters:
    named = getattr(model, part).named_parameters()
    return {f"{part}.{name}": parameter for name, parameter in named if parameter.requires_grad}


def _freeze(parts: dict[str, NamedParameters], patterns: list[str]) -> None:
    named = {name: parameter for part in parts.values() for name, parameter in part.items()}
    for pattern in patterns:
        matching = [parameter for name, parameter in named.items() if fnmatchcase(name, pattern)]
        if not matching:
            raise UserError(
                f"frozen: {pattern} matches no trained parameter; their names look like {next(iter(named))}."
            )
        for parameter in matching:
            parameter.requires_grad_(False)
