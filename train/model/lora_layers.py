"""Which layers get an adapter: those of the transformers in UNet and text encoder, as in kohya's scripts."""

import re
from collections.abc import Mapping

TARGET_MODULES = {
    "unet": r".*\.attentions\.\d+\.(proj_in|proj_out|.*\.(to_q|to_k|to_v|to_out\.0|ff\.net\.0\.proj|ff\.net\.2))",
    "text_encoder": r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
}
"""Part → pattern of its layers' names."""


def count_adapter_parameters(part: str, tensors: Mapping[str, tuple[int, ...]], rank: int) -> int:
    """Numbers in a part's adapters.

    Args:
        tensors: name → shape of the part's weights.
    """
    layers = (
        shape
        for name, shape in tensors.items()
        if name.endswith(".weight") and re.fullmatch(TARGET_MODULES[part], name.removesuffix(".weight"))
    )
    return sum(rank * (shape[0] + shape[1]) for shape in layers)
