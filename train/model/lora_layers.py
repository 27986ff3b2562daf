"""The layers that get an adapter. Which they are, a family says (dreamloom.train.model.family).

Apart from `dreamloom.train.model.lora`, as the memory estimate reads this without torch.
"""

import re
from collections.abc import Iterable, Mapping

ADAPTER_NAME = "default"
"""What peft calls the adapters in memory; its files leave it out."""


def kohya_name(beginning: str, layer: str) -> str:
    """Returns a layer's name in kohya's files, such as lora_unet_mid_block_attentions_0_proj_in.

    Args:
        beginning: of the names of its component, as the family has it.
        layer: its name in the component.
    """
    return beginning + layer.removeprefix("text_model.").replace(".", "_")


def is_adapter(name: str) -> bool:
    """Tells whether a parameter of this name belongs to an adapter."""
    return ".lora_A." in name or ".lora_B." in name


def adapted_layers(pattern: str, tensors: Iterable[str]) -> list[str]:
    """Returns the names of a component's layers that get an adapter.

    Args:
        pattern: of their names, as the family has it.
        tensors: names of the component's weights.
    """
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    return [layer for layer in layers if re.fullmatch(pattern, layer)]


def count_adapter_parameters(pattern: str, tensors: Mapping[str, tuple[int, ...]], rank: int) -> int:
    """Counts the parameters of a component's adapters.

    Args:
        pattern: of the names of its layers that get one.
        tensors: name → shape of the component's weights.
        rank: the adapters' rank.
    """
    layer_shapes = (tensors[f"{layer}.weight"] for layer in adapted_layers(pattern, tensors))
    return sum(rank * (shape[0] + shape[1]) for shape in layer_shapes)
