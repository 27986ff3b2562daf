"""Selects the parameters of a model that are trained: all weights, some of them, or adapters."""

from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import nn

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.lora import ADAPTER_NAME, add_adapters, is_adapter
from dreamloom.train.model.model import Model

NamedParameters = dict[str, nn.Parameter]


def trainable_parameters(model: Model, config: TrainConfig) -> dict[str, NamedParameters]:
    """Selects the parameters to train, and makes them require gradients; adds adapters where the config wants them.

    Returns:
        Part (unet, text_encoder, or embeddings: those of new words) → name such as unet.conv_in.weight → parameter.

    Raises:
        UserError: a pattern of `frozen` matches no name, or nothing is left to train.
    """
    parts = ["unet", "text_encoder"] if config.text_encoder_learning_rate > 0 else ["unet"]
    parts = [] if config.embeddings_alone else parts
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
    trained["embeddings"] = _new_words(model)
    if not any(trained.values()):
        raise UserError("frozen leaves nothing to train; remove a pattern.")
    return {part: named for part, named in trained.items() if named}


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
    spellings = {name: _spellings(name) for name in named}
    for pattern in patterns:
        matching = [name for name in named if any(fnmatchcase(spelling, pattern) for spelling in spellings[name])]
        if not matching:
            raise UserError(_explain_no_match(pattern, spellings))
        for name in matching:
            named[name].requires_grad_(False)


def _spellings(name: str) -> list[str]:
    """Returns the names by which a pattern may know a parameter; the first is that of diffusers' and peft's files.

    transformers 5 calls a text encoder's layers text_encoder.encoder.…, its files text_encoder.text_model.encoder.…
    An adapter is also known by the weight of its layer.
    """
    part, _, inside = name.partition(".")
    prefixes = ("text_model.", "") if part == "text_encoder" else ("",)
    plain = inside.removeprefix("text_model.").replace(f".{ADAPTER_NAME}.", ".")
    names = [plain, plain.partition(".lora_")[0] + ".weight"] if is_adapter(name) else [plain]
    return [f"{part}.{prefix}{each}" for each in names for prefix in prefixes] + [name]


def _explain_no_match(pattern: str, spellings: dict[str, list[str]]) -> str:
    """Says which names there are that are like a pattern, in the part that it is about."""
    part = pattern.partition(".")[0]
    trained = {name.partition(".")[0] for name in spellings}
    if part in ("unet", "text_encoder") and part not in trained:
        return f"frozen: {pattern} matches nothing that is trained: {part} is not trained at all; remove the pattern."
    names = [files for name, (files, *_) in spellings.items() if part not in trained or name.startswith(f"{part}.")]
    blocks = list(dict.fromkeys(".".join(name.split(".")[:depth]) for depth in (3, 5, 99) for name in names))
    near = get_close_matches(pattern.rstrip("*."), blocks, n=3, cutoff=0.3) or names[:3]
    return f"frozen: {pattern} matches no parameter that is trained; near ones are {', '.join(near)}."
