"""The layers that get an adapter. Which they are, a family says (dreamloom.train.model.family).

Apart from `dreamloom.train.model.lora`, as the memory estimate reads this without torch.
"""

import re
from collections.abc import Iterable, Mapping

from dreamloom.train.adapter_kinds import KINDS
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.family import Family

ADAPTER_NAME = "default"
"""What peft calls the adapters in memory; its files leave it out."""
_TENSOR = re.compile(
    rf"(.+)\.({'|'.join(sorted({name for kind in KINDS.values() for name in kind.tensors}))})"
    rf"(?:\.{ADAPTER_NAME})?(?:\.weight)?"
)

_QUANTIZED = re.compile(r".*blocks?\..*\.(to_q|to_k|to_v|to_out\.0|add_\w_proj|to_add_out|net\.0\.proj|net\.2)")
"""Attentions and the layers between them, in UNets as in transformers: most of a large model."""
_IN_BLOCKS = re.compile(r".*blocks?\..*")


def kohya_name(beginning: str, layer: str) -> str:
    """Returns a layer's name in kohya's files, such as lora_unet_mid_block_attentions_0_proj_in.

    Args:
        beginning: of the names of its component, as the family has it.
        layer: its name in the component.
    """
    return beginning + layer.removeprefix("text_model.").replace(".", "_")


def divide_name(name: str) -> tuple[str, str] | None:
    """Divides the name of an adapter's tensor, as peft has it in memory or in files, into layer and tensor.

    Returns:
        Such as mid_block.….to_q and lora_A; None: it is no tensor of an adapter.
    """
    found = _TENSOR.fullmatch(name)
    return (found[1], found[2]) if found else None


def is_adapter(name: str) -> bool:
    """Tells whether a parameter of this name belongs to an adapter."""
    return divide_name(name) is not None


def adapter_pattern(config: TrainConfig, family: Family, component: str) -> str:
    """Returns the pattern (re) of the names of a component's layers that get an adapter."""
    patterns = [family.adapter_layers[component]]
    if config.lora_convolutions and component in family.convolution_layers:
        patterns.append(family.convolution_layers[component])
    return "|".join(f"(?:{pattern})" for pattern in patterns)


def adapted_layers(pattern: str, tensors: Iterable[str]) -> list[str]:
    """Returns the names of a component's layers that get an adapter.

    Args:
        pattern: of their names, see `adapter_pattern`.
        tensors: names of the component's weights.
    """
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    return [layer for layer in layers if re.fullmatch(pattern, layer)]


def quantized_layers(tensors: Iterable[str]) -> list[str]:
    """Returns the names of a denoiser's layers whose weights base_bits stores in fewer bits.

    Args:
        tensors: names of its weights.
    """
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    return [layer for layer in layers if _QUANTIZED.fullmatch(layer)]


def layers_in_blocks(tensors: Iterable[str]) -> list[str]:
    """Returns the names of all layers in a denoiser's blocks, of whose matrices base_on_cpu keeps the weights there.

    Args:
        tensors: names of its weights.
    """
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    return [layer for layer in layers if _IN_BLOCKS.fullmatch(layer)]


def count_adapter_parameters(
    config: TrainConfig, family: Family, component: str, tensors: Mapping[str, tuple[int, ...]]
) -> int:
    """Counts the parameters of a component's adapters.

    Args:
        config: their rank and kind.
        family: the model's.
        component: which.
        tensors: name → shape of the component's weights.
    """
    layers = adapted_layers(adapter_pattern(config, family, component), tensors)
    kind, rank = KINDS[config.lora_kind], config.lora_rank or 0
    return sum(kind.count_parameters(tensors[f"{layer}.weight"], rank) for layer in layers)
