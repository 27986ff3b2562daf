"""Low-rank adapters: small matrices beside a model's layers learn in their place (dreamloom.train.adapter_kinds).

peft injects and removes them. Here is their initialization, which depends on seed and layer only;
dreamloom.train.export.lora_files writes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dreamloom.train.adapter_kinds import DORA, KINDS, LOHA, LOKR
from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.model.family import trained_components
from dreamloom.train.model.lora_layers import ADAPTER_NAME, adapter_pattern, divide_name
from dreamloom.train.model.model import Model


def add_adapters(model: Model, config: TrainConfig) -> None:
    """Injects adapters into the denoiser and the text encoders that are trained.

    At first they change no output; `dreamloom.train.model.init_lora.load_adapters` starts them from a file.
    """
    import peft

    kind = KINDS[config.lora_kind]
    for part in trained_components(config, model.family):
        module = model.components[part]
        settings = peft_settings(config, adapter_pattern(config, model.family, part))
        peft.inject_adapter_in_model(settings, module, ADAPTER_NAME)
        if config.base_on_cpu:  # peft puts adapters where their layers are
            module.to(model.device)
        module.requires_grad_(False)
        for name, parameter in module.named_parameters():
            if (found := divide_name(name)) is None:
                continue
            parameter.data = parameter.data.float()
            if found[1] in kind.zero:
                parameter.data.zero_()
            elif found[1] != "lora_magnitude_vector":  # which begins as the norms of the weights
                _initialize(parameter, stream_key(config.seed, "lora", part, name))


def peft_settings(config: TrainConfig, layers: str | list[str]) -> Any:
    """Returns peft's config of a run's adapters.

    Args:
        config: the run's.
        layers: their names, or a pattern of them.
    """
    import peft

    rank, alpha = config.lora_rank or 0, resolve_lora_alpha(config)
    if config.lora_kind in (LOHA.name, LOKR.name):
        make = peft.LoHaConfig if config.lora_kind == LOHA.name else peft.LoKrConfig
        return make(r=rank, alpha=alpha, target_modules=layers)
    return peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, use_dora=config.lora_kind == DORA.name)


def resolve_lora_alpha(config: TrainConfig) -> int:
    """Resolves lora_alpha to the rank where it is not set; the adapters' product is scaled by alpha / rank."""
    return config.lora_alpha or config.lora_rank or 1


@contextmanager
def without_adapters(model: Model) -> Iterator[None]:
    """Makes a model predict as its base does inside the block."""
    layers = [layer for _, _, layer in _adapter_layers(model)]
    for layer in layers:
        layer._disable_adapters = True  # peft's own switch also changes which parameters want gradients
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def merge_adapters(model: Model) -> None:
    """Adds the adapters' product to the weights, and removes the adapters."""
    for module, name, layer in _adapter_layers(model):
        layer.merge()
        module.set_submodule(name, layer.get_base_layer())


def adapter_state_dict(model: Model) -> dict[str, Tensor]:
    """Collects the adapters' tensors under the keys of peft's files, e.g. unet.….attn1.to_q.lora_A.weight."""
    parts = [(part, model.components[part]) for part in model.family.adapter_layers if part in model.components]
    found: dict[str, Tensor] = {}
    for part, module in parts:
        for name, parameter in module.named_parameters():
            if divided := divide_name(name):
                ending = ".weight" if divided[1] in ("lora_A", "lora_B") else ""
                found[f"{part}.{divided[0]}.{divided[1]}{ending}"] = parameter.detach()
    return found


def _adapter_layers(model: Model) -> list[tuple[nn.Module, str, Any]]:
    """Lists the layers that have an adapter: the component, the layer's name in it, the layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = (model.denoiser, *model.text_encoders.values())
    named = [(module, *pair) for module in modules for pair in module.named_modules()]
    return [(module, name, layer) for module, name, layer in named if isinstance(layer, BaseTunerLayer)]


def _initialize(matrix: nn.Parameter, key: int) -> None:
    """Fills a matrix with normal numbers of the variance 1/(3 · inputs), as peft's own."""
    inputs = matrix[0].numel()
    rows = torch.arange(len(matrix), device=matrix.device)
    with torch.no_grad():
        matrix.copy_(noise.normal(key, rows, tuple(matrix.shape[1:])) * (3 * inputs) ** -0.5)
