"""Starts adapters from a LoRA file: with kohya's names, or with diffusers' of any release.

A file of a smaller rank fills the first ranks, and the others begin as ever, so they change nothing at first. The
file's alphas are folded into lora_B: the adapters begin as the file has them, whatever lora_rank and lora_alpha are.
"""

from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.family import learning_text_encoders
from dreamloom.train.model.lora_file import find_adapters, read_peft_settings
from dreamloom.train.model.lora_layers import ADAPTER_NAME, kohya_name
from dreamloom.train.model.model import Model


def load_adapters(model: Model, config: TrainConfig) -> None:
    """Copies the adapters of init_lora into those of a model, which have just been added.

    Args:
        model: its adapters are of config.lora_rank.
        config: the run's.

    Raises:
        UserError: the file's adapters are not this model's.
    """
    assert config.init_lora is not None and config.lora_rank is not None
    file = config.init_lora
    found = find_adapters(file, config.lora_rank)
    tensors, settings, places = load_file(file), read_peft_settings(file), _layers_by_name(model)
    for name, adapter in found.items():
        if name not in places:
            raise UserError(f"init_lora {file} adapts {name}, {_why_unknown(name, model, config)}.")
        part, layer = places[name]
        down, up = (tensors[adapter[side]].float().flatten(1) for side in ("down", "up"))
        alpha = (
            tensors[adapter["alpha"]].item() if "alpha" in adapter else settings.get(f"{part}.lora_alpha", len(down))
        )
        try:
            _fill(layer, down, up * (float(alpha) / len(down) / layer.scaling[ADAPTER_NAME]))
        except RuntimeError as error:
            raise UserError(f"init_lora {file} is of another base: {name} has another shape; name its base.") from error


def _fill(layer: Any, down: Tensor, up: Tensor) -> None:
    """Fills the first ranks of an adapter; those left over keep lora_A, and have 0 in lora_B."""
    lora_a, lora_b = (getattr(layer, side)[ADAPTER_NAME].weight.data for side in ("lora_A", "lora_B"))
    lora_a[: len(down)].flatten(1).copy_(down)
    lora_b[:, : len(down)].copy_(up.reshape(up.shape[0], -1, *lora_b.shape[2:]))


def _layers_by_name(model: Model) -> dict[str, tuple[str, Any]]:
    """Returns component and layer by each name that files have for it."""
    places: dict[str, tuple[str, Any]] = {}
    for part, beginning in model.family.kohya_parts.items():
        adapted = {name: layer for name, layer in model.components[part].named_modules() if hasattr(layer, "lora_A")}
        kohya_names = model.kohya_names(part, adapted)
        for name, layer in adapted.items():
            bare = name.removeprefix("text_model.")
            names = [f"{part}.{bare}", f"{part}.text_model.{bare}", kohya_name(beginning, name), kohya_names[name]]
            places |= dict.fromkeys(names, (part, layer))
    return places


def _why_unknown(name: str, model: Model, config: TrainConfig) -> str:
    learning = learning_text_encoders(config, model.family)
    for part in model.text_encoders:
        if part not in learning and name.startswith((f"{part}.", model.family.kohya_parts[part])):
            return f"but the {part.replace('_', ' ')} is not trained; set {part}_learning_rate"
    return "which gets no adapter here; name a LoRA of the layers of transformers, and its base"
