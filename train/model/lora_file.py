"""Reads what a LoRA file holds from its header: adapters with kohya's names, or with diffusers' of any release."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.train.adapter_kinds import DORA, KINDS, LOHA, LOKR, LORA
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.safetensors_header import read_metadata, read_tensor_shapes

_ENDINGS = {
    **{f".{kohya}": tensor for kind in KINDS.values() for tensor, kohya in kind.tensors.items()},
    **dict.fromkeys((".lora_A.weight", ".lora.down.weight", ".lora_linear_layer.down.weight"), "lora_A"),
    **dict.fromkeys((".lora_B.weight", ".lora.up.weight", ".lora_linear_layer.up.weight"), "lora_B"),
    **dict.fromkeys((".lora_magnitude_vector", ".lora_magnitude_vector.weight"), "lora_magnitude_vector"),
    ".alpha": "alpha",
}
"""Ending of a tensor's name → the tensor of an adapter, or alpha: as kohya and LyCORIS, peft, and older releases of
diffusers have it."""
_METADATA = "lora_adapter_metadata"
"""Where diffusers' files hold peft's settings of each component, as JSON."""

Adapter = dict[str, str]
"""Tensor of an adapter, as dreamloom.train.adapter_kinds has it, or alpha → its name in the file."""


def check_init_lora(config: TrainConfig) -> None:
    """Checks that init_lora is of the config's kind, and of at most its rank. Reads only its header.

    Raises:
        UserError: it is not.
    """
    if config.init_lora is not None:
        find_adapters(config.init_lora, config)


def find_adapters(file: Path, config: TrainConfig) -> dict[str, Adapter]:
    """Finds the adapters in a file, by the name that their layer has there.

    Raises:
        UserError: it is not a LoRA file, holds more than adapters, or they are not of the config's kind and rank.
    """
    if not file.is_file() or file.suffix != ".safetensors":
        raise UserError(f"init_lora {file} is not a .safetensors file; name a LoRA file.")
    shapes = read_tensor_shapes(file)
    adapters: dict[str, Adapter] = defaultdict(dict)
    for name in shapes:
        ending = next((each for each in _ENDINGS if name.endswith(each) and name != each), None)
        if ending is None:
            raise UserError(f"init_lora {file} is not a LoRA as it is trained here: it has {name}; name another.")
        adapters[name.removesuffix(ending)][_ENDINGS[ending]] = name
    if not adapters:
        raise UserError(f"init_lora {file} is empty; name a LoRA file.")
    _check_kind(file, {tensor for adapter in adapters.values() for tensor in adapter}, config)
    kind, max_rank = KINDS[config.lora_kind], config.lora_rank or 0
    for layer, adapter in adapters.items():
        if not kind.is_whole(set(adapter) - {"alpha"}):
            raise UserError(f"init_lora {file} has half an adapter of {layer}; copy it again.")
        rank = (shapes[adapter["lora_A"]] or (0,))[0] if "lora_A" in adapter else 0
        if rank > max_rank * (3 if layer.endswith("_qkv") else 1):  # query, key and value may stand side by side
            raise UserError(f"init_lora {file} has rank {rank}, above lora_rank {max_rank}; set lora_rank to {rank}.")
    return adapters


def _check_kind(file: Path, tensors: set[str], config: TrainConfig) -> None:
    firsts = {LOHA: "hada_w1_a", LOKR: "lokr_w1", DORA: "lora_magnitude_vector"}
    kind = next((each for each, tensor in firsts.items() if tensor in tensors), LORA)
    if kind.name != config.lora_kind:
        raise UserError(
            f"init_lora {file} is a {kind.title}, and lora_kind is {config.lora_kind}; set lora_kind to {kind.name}, "
            "or name another file."
        )


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
        if value and key.endswith((".use_rslora", ".alpha_pattern")):
            raise UserError(f"init_lora {file} has {key}, which is not trained here; name another.")
    return settings
