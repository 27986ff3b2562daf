"""Writes adapters in the two formats that other programs read.

KOHYA_FILE is for A1111, ComfyUI, kohya's scripts and diffusers. PEFT_FILE is for diffusers alone: ComfyUI knows half
of its names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamloom.train.config import TrainConfig
from dreamloom.train.export.safetensors_file import save_with_hash
from dreamloom.train.model.family import is_text_encoder
from dreamloom.train.model.lora import resolve_lora_alpha
from dreamloom.train.model.model import Model

KOHYA_FILE = "lora.safetensors"
"""The file with kohya's keys."""
PEFT_FILE = "pytorch_lora_weights.safetensors"
"""The file with peft's keys, under the name that diffusers' `load_lora_weights` looks for."""


def save_adapters(
    model: Model,
    weights: dict[str, Tensor],
    config: TrainConfig,
    folder: Path,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
) -> None:
    """Writes KOHYA_FILE and PEFT_FILE.

    Args:
        model: what they are adapters of.
        weights: the matrices, as `adapter_state_dict` names them.
        config: the run's; rank and alpha go into the files.
        folder: where to write, without a commit.
        dtype: of the written matrices.
        metadata: what KOHYA_FILE says of itself (dreamloom.train.export.metadata).
    """
    import diffusers

    plain = {name: value.to("cpu", dtype).contiguous() for name, value in weights.items()}
    save_with_hash(to_kohya_keys(model, plain, resolve_lora_alpha(config)), folder / KOHYA_FILE, metadata)
    arguments: dict[str, Any] = {}
    for part in model.family.adapter_layers:
        layers = _of_part(plain, f"{part}.")
        arguments[f"{part}_lora_adapter_metadata"] = _metadata(layers, config)
        if is_text_encoder(part):  # transformers 5 dropped `text_model.`; diffusers reads both, older programs need it
            layers = {f"text_model.{_bare(name)}": value for name, value in layers.items()}
        arguments[f"{part}_lora_layers"] = layers
    getattr(diffusers, model.family.pipeline).save_lora_weights(folder, **arguments)


def to_kohya_keys(model: Model, weights: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Renames adapters to kohya's keys: lora_unet_down_blocks_0_…_to_q.lora_down.weight, .lora_up.weight and .alpha.

    Args:
        model: what they are adapters of.
        weights: the matrices, as `adapter_state_dict` names them.
        alpha: the scale of the adapters' product, times their rank.
    """
    renamed: dict[str, Tensor] = {}
    for part in model.family.kohya_parts:
        of_part = {name.removesuffix(".weight").rpartition("."): v for name, v in _of_part(weights, f"{part}.").items()}
        names = model.kohya_names(part, {layer for layer, _, _ in of_part})
        for (layer, _, side), value in of_part.items():
            renamed[f"{names[layer]}.{'lora_down' if side == 'lora_A' else 'lora_up'}.weight"] = value
            renamed[f"{names[layer]}.alpha"] = torch.tensor(alpha, dtype=value.dtype)
    return renamed


def _of_part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _bare(name: str) -> str:
    return name.removeprefix("text_model.")


def _metadata(weights: dict[str, Tensor], config: TrainConfig) -> dict[str, Any]:
    layers = sorted({_bare(name.rsplit(".lora_", 1)[0]) for name in weights})
    return {"r": config.lora_rank, "lora_alpha": resolve_lora_alpha(config), "target_modules": layers}
