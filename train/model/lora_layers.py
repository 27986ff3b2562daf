"""The layers that get an adapter: those of the transformers in UNet and text encoder, as in kohya's scripts.

Apart from `dreamloom.train.model.lora`, as the memory estimate reads this without torch.
"""

import re
from collections.abc import Iterable, Mapping

ADAPTER_NAME = "default"
"""What peft calls the adapters in memory; its files leave it out."""
TARGET_MODULES = {
    "unet": r".*\.attentions\.\d+\.(proj_in|proj_out|.*\.(to_q|to_k|to_v|to_out\.0|ff\.net\.0\.proj|ff\.net\.2))",
    "text_encoder": r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
}
"""Component → pattern of the names of its layers with an adapter."""
_KOHYA_PART = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}


def kohya_name(part: str, layer: str) -> str:
    """Returns a layer's name in kohya's files, such as lora_unet_mid_block_attentions_0_proj_in.

    Args:
        part: unet or text_encoder.
        layer: its name in the component.
    """
    return _KOHYA_PART[part] + layer.removeprefix("text_model.").replace(".", "_")


def is_adapter(name: str) -> bool:
    """Tells whether a parameter of this name belongs to an adapter."""
    return ".lora_A." in name or ".lora_B." in name


def adapted_layers(part: str, tensors: Iterable[str]) -> list[str]:
    """Returns the names of a component's layers that get an adapter.

    Args:
        part: unet or text_encoder.
        tensors: names of its weights.
    """
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    return [layer for layer in layers if re.fullmatch(TARGET_MODULES[part], layer)]


def count_adapter_parameters(part: str, tensors: Mapping[str, tuple[int, ...]], rank: int) -> int:
    """Counts the parameters of a component's adapters.

    Args:
        part: unet or text_encoder.
        tensors: name → shape of the component's weights.
        rank: the adapters' rank.
    """
    layer_shapes = (tensors[f"{layer}.weight"] for layer in adapted_layers(part, tensors))
    return sum(rank * (shape[0] + shape[1]) for shape in layer_shapes)
