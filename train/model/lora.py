"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): small matrices beside a model's layers learn in their place.

peft injects and removes them. Here are their initialization, which depends on seed and layer only, and the two file
formats in which other programs read them.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.model.lora_layers import TARGET_MODULES
from dreamloom.train.model.model import Model

KOHYA_FILE = "lora.safetensors"
"""The file for A1111, ComfyUI and others, with kohya's keys."""
PEFT_FILE = "pytorch_lora_weights.safetensors"
"""The file for diffusers' `load_lora_weights`, with peft's keys, under the name it looks for."""

_NAME = "default"
_KOHYA_PART = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
_ADAPTER = ("lora_A", "lora_B")


def add_adapters(model: Model, config: TrainConfig) -> None:
    """Injects adapters into the UNet and, where it is trained, the text encoder. At first they change no output."""
    import peft

    assert config.lora_rank is not None
    for part in ["unet", "text_encoder"] if config.text_encoder_learning_rate > 0 else ["unet"]:
        module = getattr(model, part)
        settings = peft.LoraConfig(
            r=config.lora_rank, lora_alpha=resolve_lora_alpha(config), target_modules=TARGET_MODULES[part]
        )
        peft.inject_adapter_in_model(settings, module, _NAME)
        module.requires_grad_(False)
        for name, parameter in module.named_parameters():
            if is_adapter(name):
                parameter.data = parameter.data.float()
            if ".lora_A." in name:
                _initialize(parameter, stream_key(config.seed, "lora", part, name))


def resolve_lora_alpha(config: TrainConfig) -> int:
    """Resolves lora_alpha to the rank where it is not set; the adapters' product is scaled by alpha / rank."""
    return config.lora_alpha or config.lora_rank or 1


def merge_adapters(model: Model) -> None:
    """Adds the adapters' product to the weights, and removes the adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in (model.unet, model.text_encoder):
        for name, layer in list(module.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                module.set_submodule(name, layer.get_base_layer())


def adapter_state_dict(model: Model) -> dict[str, Tensor]:
    """Collects the adapters' matrices under peft's keys, e.g. unet.….attn1.to_q.lora_A.weight."""
    parameters = {f"{part}.{name}": p for part in TARGET_MODULES for name, p in getattr(model, part).named_parameters()}
    return {name.replace(f".{_NAME}.", "."): p.detach() for name, p in parameters.items() if is_adapter(name)}


def save_adapters(weights: dict[str, Tensor], config: TrainConfig, folder: Path, dtype: torch.dtype) -> None:
    """Writes adapters for other programs: KOHYA_FILE and PEFT_FILE.

    Args:
        weights: the matrices, as `adapter_state_dict` names them.
        config: the run's; rank and alpha go into the files.
        folder: where to write, without a commit.
        dtype: of the written matrices.
    """
    import diffusers

    plain = {name: value.to("cpu", dtype).contiguous() for name, value in weights.items()}
    save_file(to_kohya_keys(plain, resolve_lora_alpha(config)), folder / KOHYA_FILE, metadata=_kohya_metadata(config))
    unet, text_encoder = (_of_part(plain, f"{part}.") for part in TARGET_MODULES)
    diffusers.StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=unet,
        # transformers 5 dropped `text_model.`; diffusers reads both, and older programs need it
        text_encoder_lora_layers={f"text_model.{_bare(name)}": value for name, value in text_encoder.items()},
        unet_lora_adapter_metadata=_metadata(unet, config),
        text_encoder_lora_adapter_metadata=_metadata(text_encoder, config),
    )


def to_kohya_keys(weights: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Renames adapters to kohya's keys: lora_unet_down_blocks_0_…_to_q.lora_down.weight, .lora_up.weight and .alpha.

    Args:
        weights: the matrices, as `adapter_state_dict` names them.
        alpha: the scale of the adapters' product, times their rank.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        part, _, inside = name.partition(".")
        layer, _, side = inside.removesuffix(".weight").rpartition(".")
        stem = _KOHYA_PART[part] + _bare(layer).replace(".", "_")
        renamed[f"{stem}.{'lora_down' if side == 'lora_A' else 'lora_up'}.weight"] = value
        renamed[f"{stem}.alpha"] = torch.tensor(alpha, dtype=value.dtype)
    return renamed


def _initialize(matrix: nn.Parameter, key: int) -> None:
    """Fills lora_A with normal numbers of the variance 1/(3 · inputs), as peft's own; lora_B starts at 0."""
    inputs = matrix[0].numel()
    rows = torch.arange(len(matrix), device=matrix.device)
    with torch.no_grad():
        matrix.copy_(noise.normal(key, rows, tuple(matrix.shape[1:])) * (3 * inputs) ** -0.5)


def is_adapter(name: str) -> bool:
    """Tells whether a parameter of this name belongs to an adapter."""
    return any(f".{side}." in name for side in _ADAPTER)


def _of_part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _bare(name: str) -> str:
    return name.removeprefix("text_model.")


def _metadata(weights: dict[str, Tensor], config: TrainConfig) -> dict[str, Any]:
    layers = sorted({_bare(name.rsplit(".lora_", 1)[0]) for name in weights})
    return {"r": config.lora_rank, "lora_alpha": resolve_lora_alpha(config), "target_modules": layers}


def _kohya_metadata(config: TrainConfig) -> dict[str, str]:
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config.lora_rank),
        "ss_network_alpha": str(resolve_lora_alpha(config)),
    }
