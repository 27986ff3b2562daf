"""Reads what a LoRA file holds from its header: adapters with kohya's names, or with diffusers' of any release."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.safetensors_header import read_metadata, read_tensor_shapes

_NAME = re.compile(
    r"(.+?)\.(?:(lora_A|lora_down|lora(?:_linear_layer)?\.down)|(lora_B|lora_up|lora(?:_linear_layer)?\.up))\.weight"
)
"""The layer, and a side of its adapter as peft, kohya, and older releases of diffusers call it."""
_METADATA = "lora_adapter_metadata"
"""Where diffusers' files hold peft's settings of each component, as JSON."""

Adapter = dict[str, str]
"""Side of an adapter, down or up, or alpha → the name of its tensor."""


def check_init_lora(config: TrainConfig) -> None:
    """Checks that init_lora is a LoRA of at most lora_rank. Reads only its header.

    Raises:
        UserError: it is not.
    """
    if config.init_lora is not None:
        find_adapters(config.init_lora, config.lora_rank or 0)


def find_adapters(file: Path, max_rank: int) -> dict[str, Adapter]:
    """Finds the adapters in a file, by the name that their layer has there.

    Raises:
        UserError: it is not a LoRA file, holds more than adapters, or has a rank above `max_rank`.
    """
    if not file.is_file() or file.suffix != ".safetensors":
        raise UserError(f"init_lora {file} is not a .safetensors file; name a LoRA file.")
    shapes = read_tensor_shapes(file)
    adapters: dict[str, Adapter] = defaultdict(dict)
    for name in shapes:
        layer, side = _divide(name)
        if side is None:
            raise UserError(f"init_lora {file} is not a LoRA as it is trained here: it has {name}; name another.")
        adapters[layer][side] = name
    for layer, adapter in adapters.items():
        if not {"down", "up"} <= adapter.keys():
            raise UserError(f"init_lora {file} has half an adapter of {layer}; copy it again.")
        if (rank := (shapes[adapter["down"]] or (0,))[0]) > max_rank:
            raise UserError(f"init_lora {file} has rank {rank}, above lora_rank {max_rank}; set lora_rank to {rank}.")
    if not adapters:
        raise UserError(f"init_lora {file} is empty; name a LoRA file.")
    return adapters


def read_peft_settings(file: Path) -> Mapping[str, Any]:
    """Reads what a file of diffusers says of its adapters, such as unet.lora_alpha; empty for other files.

    Raises:
        UserError: they are scaled in another way than by alpha / rank.
    """
    try:
        settings = json.loads(read_metadata(file).get(_METADATA, "{}"))
    except (ValueError, RecursionError):
        settings = {}
    settings = settings if isinstance(settings, dict) else {}
    for key, value in settings.items():
        if value and key.endswith((".use_rslora", ".use_dora", ".alpha_pattern")):
            raise UserError(f"init_lora {file} has {key}, which is not trained here; name another.")
    return settings


def _divide(name: str) -> tuple[str, str | None]:
    """Divides a tensor's name into that of its layer and what it is of an adapter: down, up, alpha, or None."""
    if match := _NAME.fullmatch(name):
        return match[1], "down" if match[2] else "up"
    layer, _, last = name.rpartition(".")
    return layer, "alpha" if last == "alpha" and layer else None
