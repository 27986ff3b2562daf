"""What of a model learns: its weights, some of them, or adapters beside them."""

from fnmatch import fnmatchcase

import torch
from torch import nn

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.lora import add_adapters, is_adapter
from dreamloom.train.model.model import Model

NamedParameters = dict[str, nn.Parameter]


def trainable_parameters(model: Model, config: TrainConfig) -> dict[str, NamedParameters]:
    """Part (unet, text_encoder) → name such as unet.conv_in.weight → parameter; these need gradients from here on.

    Raises:
        UserError: a pattern of `frozen` fits no name, or nothing is left to learn.
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
    found = {part: _of_part(model, part) for part in parts}
    _freeze(found, config.frozen)
    left = {part: {n: p for n, p in named.items() if p.requires_grad} for part, named in found.items()}
    if not any(left.values()):
        raise UserError("frozen leaves nothing to learn; take a pattern out.")
    return {part: named for part, named in left.items() if named}


def _of_part(model: Model, part: str) -> NamedParameters:
    named = getattr(model, part).named_parameters()
    return {f"{part}.{name}": parameter for name, parameter in named if parameter.requires_grad}


def _freeze(found: dict[str, NamedParameters], patterns: list[str]) -> None:
    named = {name: parameter for part in found.values() for name, parameter in part.items()}
    for pattern in patterns:
        fitting = [parameter for name, parameter in named.items() if fnmatchcase(name, pattern)]
        if not fitting:
            raise UserError(f"frozen: {pattern} fits nothing that learns; names look like {next(iter(named))}.")
        for parameter in fitting:
            parameter.requires_grad_(False)
