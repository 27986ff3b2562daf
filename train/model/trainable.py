"""Selects the parameters of a model that are trained: all weights, some of them, or adapters."""

import torch
from torch import nn

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.frozen import find_frozen
from dreamloom.train.model.init_lora import load_adapters
from dreamloom.train.model.lora import add_adapters
from dreamloom.train.model.lora_layers import is_adapter
from dreamloom.train.model.model import Model

NamedParameters = dict[str, nn.Parameter]


def trainable_parameters(model: Model, config: TrainConfig) -> dict[str, NamedParameters]:
    """Selects the parameters to train, and makes them require gradients; adds adapters where the config wants them.

    Returns:
        Part (unet, text_encoder, or embeddings: those of new words) → name such as unet.conv_in.weight → parameter.

    Raises:
        UserError: a pattern of `frozen` matches no name, nothing is left to train, or init_lora does not fit the model.
    """
    if config.weight_dtype == "bf16":
        for part in ("unet", "text_encoder"):
            getattr(model, part).to(torch.bfloat16)
    if config.lora_rank is not None:
        add_adapters(model, config)
    if config.init_lora is not None:
        load_adapters(model, config)
    for part in config.trained_parts:
        for name, parameter in getattr(model, part).named_parameters():
            parameter.requires_grad_(config.lora_rank is None or is_adapter(name))
    for name, parameter in model.text_encoder.named_parameters():
        if any(f"encoder.layers.{layer}." in name for layer in _skipped_layers(model)):
            parameter.requires_grad_(False)
    candidates = {part: _of_part(model, part) for part in config.trained_parts}
    _freeze(candidates, config.frozen)
    trained = {part: {n: p for n, p in named.items() if p.requires_grad} for part, named in candidates.items()}
    trained["embeddings"] = _new_words(model)
    if not any(trained.values()):
        raise UserError("frozen leaves nothing to train; remove a pattern.")
    return {part: named for part, named in trained.items() if named}


def _skipped_layers(model: Model) -> range:
    """The layers of the text encoder that the UNet does not see, so that nothing would reach them."""
    layers = model.text_encoder.config.num_hidden_layers
    return range(layers + 1 - model.clip_skip, layers)


def _of_part(model: Model, part: str) -> NamedParameters:
    vectors = getattr(model.text_encoder.get_input_embeddings(), "vectors", None)
    named = getattr(model, part).named_parameters()
    return {f"{part}.{name}": p for name, p in named if p.requires_grad and p is not vectors}


def _new_words(model: Model) -> NamedParameters:
    """The vectors of new words, in float32 and trained."""
    if model.new_words is None:
        return {}
    vectors = model.text_encoder.get_input_embeddings().vectors
    vectors.data = vectors.data.float()
    named = model.text_encoder.named_parameters()
    return {f"text_encoder.{n}": p.requires_grad_(True) for n, p in named if p is vectors}


def _freeze(parts: dict[str, NamedParameters], patterns: list[str]) -> None:
    named = {name: parameter for part in parts.values() for name, parameter in part.items()}
    for name in find_frozen(patterns, named):
        named[name].requires_grad_(False)
