"""Models of real shape, which no download is needed for: with random weights, or with none."""

from typing import Any

import torch

from bench.families import Configs
from dreamloom.train.families.opening import make_schedule
from dreamloom.train.families.parts import make_network
from dreamloom.train.families.registry import FAMILIES
from dreamloom.train.model.model import Model


def random_model(name: str, configs: Configs, device: torch.device, half: bool = False) -> Model:
    """Makes a model.

    Args:
        name: its family's.
        configs: of its components; a text encoder without one is left out.
        device: where to put it.
        half: whether to make it in float16, of normal numbers of the deviation 0.02.
    """
    torch.manual_seed(0)
    family = FAMILIES[name]
    networks = [part for part in (family.denoiser, "vae", *family.text_encoders) if part in configs]
    with torch.device("meta") if half else device:
        components = {part: make_network(family, part, configs[part]) for part in networks}
    for module in components.values():
        if half:
            _fill(module)
        else:
            module.eval().to(device=device, memory_format=torch.channels_last)
        module.requires_grad_(False)
    scheduler = _scheduler(configs)
    schedule = make_schedule(family, scheduler).to(device)
    tokenizers = family.file_tokenizers(configs)
    model: Model = family.model_class()(family, components, tokenizers, scheduler, schedule)
    return model


def model_without_memory(name: str, configs: Configs) -> Model:
    """Makes a model whose weights have shapes only, without tokenizers; configs as for `random_model`."""
    family = FAMILIES[name]
    with torch.device("meta"):
        networks = {part: make_network(family, part, configs[part]) for part in family.file_prefixes if part in configs}
    scheduler = _scheduler(configs)
    model: Model = family.model_class()(family, networks, {}, scheduler, make_schedule(family, scheduler))
    return model


def _scheduler(configs: Configs) -> Any:
    import diffusers

    return getattr(diffusers, configs["scheduler"]["_class_name"]).from_config(configs["scheduler"])


def _fill(module: Any) -> None:
    module.half().to_empty(device="cpu")
    for parameter in module.parameters():
        parameter.data.normal_(std=0.02)
    for name, buffer in module.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]))
