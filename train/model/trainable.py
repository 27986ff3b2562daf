"""Selects the parameters of a model that are trained: all weights, some of them, or adapters."""

import re

import torch
from torch import nn

from dreamloom.base.errors import UserError
from dreamloom.base.models.device import choose_precision
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.embeddings import TokenEmbedding
from dreamloom.train.model.family import trained_components
from dreamloom.train.model.frozen import find_frozen
from dreamloom.train.model.init_lora import load_adapters
from dreamloom.train.model.lora import add_adapters
from dreamloom.train.model.lora_layers import is_adapter
from dreamloom.train.model.model import Model
from dreamloom.train.model.offload import keep_on_cpu
from dreamloom.train.model.quantize import quantize

NamedParameters = dict[str, nn.Parameter]


def trainable_parameters(model: Model, config: TrainConfig) -> dict[str, NamedParameters]:
    """Selects the parameters to train, and makes them require gradients; adds adapters where the config wants them.

    Returns:
        Component, or embeddings for those of new words → name such as unet.conv_in.weight → parameter.

    Raises:
        UserError: a pattern of `frozen` matches no name, nothing is left to train, or init_lora does not fit the model.
    """
    store_weights(model, config)
    if config.lora_rank is not None:
        add_adapters(model, config)
    if config.init_lora is not None:
        load_adapters(model, config)
    parts = trained_components(config, model.family)
    for part in parts:
        for name, parameter in model.components[part].named_parameters():
            parameter.requires_grad_(config.lora_rank is None or is_adapter(name))
    for part, module in model.text_encoders.items():
        if unused := model.unused_layers(part):
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and not re.fullmatch(unused, name))
    candidates = {part: _of_part(model, part) for part in parts}
    _freeze(candidates, config.frozen)
    trained = {part: {n: p for n, p in named.items() if p.requires_grad} for part, named in candidates.items()}
    trained["embeddings"] = _new_words(model)
    if not any(trained.values()):
        raise UserError("frozen leaves nothing to train; remove a pattern.")
    return {part: named for part, named in trained.items() if named}


def store_weights(model: Model, config: TrainConfig) -> None:
    """Stores the weights of the denoiser and of the text encoders in the bits that the config wants; once and again.

    Raises:
        UserError: a library is missing.
    """
    if config.weight_dtype == "bf16":
        for module in (model.denoiser, *model.text_encoders.values()):
            module.to(torch.bfloat16)
    if config.base_on_cpu:
        keep_on_cpu(model.denoiser, model.device)
    if config.base_bits is not None:
        quantize(model.denoiser, config.base_bits, model.device, choose_precision(config.precision, model.device))


def _of_part(model: Model, part: str) -> NamedParameters:
    new = {id(module.vectors) for module in _embeddings(model).values()}
    named = model.components[part].named_parameters()
    return {f"{part}.{name}": p for name, p in named if p.requires_grad and id(p) not in new}


def _new_words(model: Model) -> NamedParameters:
    """The vectors of new words, in float32 and trained."""
    found: NamedParameters = {}
    for part, embedding in _embeddings(model).items():
        embedding.vectors.data = embedding.vectors.data.float()
        named = model.components[part].named_parameters()
        embedding.vectors.requires_grad_(True)
        found |= {f"{part}.{n}": p for n, p in named if p is embedding.vectors}
    return found


def _embeddings(model: Model) -> dict[str, TokenEmbedding]:
    """The embeddings with new words, by text encoder."""
    inputs = {part: module.get_input_embeddings() for part, module in model.text_encoders.items()}
    return {part: embedding for part, embedding in inputs.items() if isinstance(embedding, TokenEmbedding)}


def _freeze(parts: dict[str, NamedParameters], patterns: list[str]) -> None:
    named = {name: parameter for part in parts.values() for name, parameter in part.items()}
    for name in find_frozen(patterns, named):
        named[name].requires_grad_(False)
