"""Writes adapters under the names that other programs read.

KOHYA_FILE is for A1111, ComfyUI, kohya's scripts and diffusers. PEFT_FILE is for diffusers alone: ComfyUI knows half
of its names. LoHa and LoKr, which diffusers does not read from there, are in PEFT_FOLDER, for peft.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dreamloom.train.adapter_kinds import DORA, KINDS, LOKR, AdapterKind
from dreamloom.train.config import TrainConfig
from dreamloom.train.export.safetensors_file import save_with_hash
from dreamloom.train.model.family import is_text_encoder
from dreamloom.train.model.lora import peft_settings, resolve_lora_alpha
from dreamloom.train.model.lora_layers import divide_name, kohya_name
from dreamloom.train.model.model import Model

KOHYA_FILE = "lora.safetensors"
"""The file with kohya's keys; of LoHa and LoKr, LyCORIS'."""
PEFT_FILE = "pytorch_lora_weights.safetensors"
"""The file with peft's keys, under the name that diffusers' `load_lora_weights` looks for."""
PEFT_FOLDER = "peft"
"""The folder with one of peft's own for each component."""


def save_adapters(
    model: Model,
    weights: dict[str, Tensor],
    config: TrainConfig,
    folder: Path,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
) -> None:
    """Writes KOHYA_FILE, and PEFT_FILE or PEFT_FOLDER.

    Args:
        model: what they are adapters of.
        weights: the tensors, as `adapter_state_dict` names them.
        config: the run's; kind, rank and alpha go into the files.
        folder: where to write, without a commit.
        dtype: of the written tensors.
        metadata: what KOHYA_FILE says of itself (dreamloom.train.export.metadata).
    """
    plain = {name: value.to("cpu", dtype).contiguous() for name, value in weights.items()}
    save_with_hash(to_kohya_keys(model, plain, config), folder / KOHYA_FILE, metadata)
    if KINDS[config.lora_kind].algorithm is None:
        _save_for_diffusers(model, plain, config, folder)
    else:
        _save_for_peft(model, plain, config, folder / PEFT_FOLDER)


def to_kohya_keys(model: Model, weights: dict[str, Tensor], config: TrainConfig) -> dict[str, Tensor]:
    """Renames adapters to kohya's keys: lora_unet_down_blocks_0_…_to_q.lora_down.weight, .lora_up.weight and .alpha.

    Args:
        model: what they are adapters of.
        weights: the tensors, as `adapter_state_dict` names them.
        config: the run's.
    """
    kind, alpha = KINDS[config.lora_kind], resolve_lora_alpha(config)
    renamed: dict[str, Tensor] = {}
    for part, beginning in model.family.kohya_parts.items():
        layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, value in _of_part(weights, f"{part}.").items():
            layer, tensor = divide_name(key) or (key, "")
            layers[layer][tensor] = value
        names = model.kohya_names(part, layers)
        if kind is LOKR and len(set(names.values())) < len(names):  # a sum of Kronecker products is none
            names = {layer: kohya_name(beginning, layer) for layer in layers}
        joined: dict[str, list[dict[str, Tensor]]] = defaultdict(list)
        for layer, name in names.items():
            joined[name].append(layers[layer])
        for name, adapters in joined.items():
            count = len(adapters)
            adapter = _join(adapters) if count > 1 else adapters[0]
            renamed |= _as_file(name, adapter, kind, alpha * count, (config.lora_rank or 1) * count)
    return renamed


def _as_file(name: str, adapter: Mapping[str, Tensor], kind: AdapterKind, alpha: int, rank: int) -> dict[str, Tensor]:
    """Returns the tensors of a layer's adapter as kohya's files have them.

    LoHa and LoKr hold their scale, as LyCORIS 4 merges with its square, and programs scale no LoKr without a rank.
    """
    dtype = next(iter(adapter.values())).dtype
    found = {"alpha": torch.tensor(alpha if kind.algorithm is None else rank, dtype=dtype)}
    for tensor, value in adapter.items():
        if kind.algorithm is not None and tensor == kind.scaled_tensor(adapter):
            value = value * (alpha / rank)
        if tensor == "lora_magnitude_vector":  # [outputs, 1], or [outputs, 1, 1, 1] of a convolution, as LyCORIS
            value = value.reshape(-1, *[1] * (adapter["lora_A"].ndim - 1))
        found[kind.tensors[tensor]] = value
    return {f"{name}.{ending}": value.contiguous() for ending, value in found.items()}


def _join(adapters: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Joins the adapters of layers that are one in a file: their ranks stand side by side."""
    joined: dict[str, Tensor] = {}
    for tensor in adapters[0]:
        values = [adapter[tensor] for adapter in adapters]
        stands_apart = tensor in ("lora_B", "hada_w1_a", "hada_w2_a")
        joined[tensor] = torch.block_diag(*values) if stands_apart else torch.cat(values)  # type: ignore[no-untyped-call]
    return joined


def _save_for_diffusers(model: Model, weights: dict[str, Tensor], config: TrainConfig, folder: Path) -> None:
    import diffusers

    arguments: dict[str, Any] = {}
    for part in model.family.adapter_layers:
        layers = _of_part(weights, f"{part}.")
        arguments[f"{part}_lora_adapter_metadata"] = _metadata(layers, config)
        if is_text_encoder(part):  # transformers 5 dropped `text_model.`; diffusers reads both, older programs need it
            layers = {f"text_model.{_weight(_bare(name))}": value for name, value in layers.items()}
        arguments[f"{part}_lora_layers"] = layers
    getattr(diffusers, model.family.pipeline).save_lora_weights(folder, **arguments)


def _save_for_peft(model: Model, weights: dict[str, Tensor], config: TrainConfig, folder: Path) -> None:
    for part in model.family.adapter_layers:
        if not (tensors := _of_part(weights, f"{part}.")):
            continue
        own = folder / part
        peft_settings(config, _layers(tensors)).save_pretrained(own)
        named = {f"base_model.model.{name}": value for name, value in tensors.items()}
        save_file(named, own / "adapter_model.safetensors", {"format": "pt"})


def _of_part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _bare(name: str) -> str:
    return name.removeprefix("text_model.")


def _weight(name: str) -> str:
    """Spells a DoRA's norms as transformers finds them: without the ending, it leaves them out in silence."""
    return f"{name}.weight" if name.endswith("lora_magnitude_vector") else name


def _layers(weights: dict[str, Tensor]) -> list[str]:
    return sorted({divided[0] for name in weights if (divided := divide_name(name))})


def _metadata(weights: dict[str, Tensor], config: TrainConfig) -> dict[str, Any]:
    layers = sorted(map(_bare, _layers(weights)))
    settings = {"r": config.lora_rank, "lora_alpha": resolve_lora_alpha(config), "target_modules": layers}
    return {**settings, "use_dora": True} if config.lora_kind == DORA.name else settings
