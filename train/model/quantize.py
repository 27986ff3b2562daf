"""Stores a frozen denoiser in 8 or 4 bits a weight, under adapters (QLoRA, Dettmers et al. 2023, arXiv 2305.14314)."""

import torch
from torch import nn

from dreamloom.base.errors import UserError
from dreamloom.train.model.lora_layers import quantized_layers


def quantize(denoiser: nn.Module, bits: int, device: torch.device, precision: torch.dtype) -> None:
    """Replaces the weights of the attentions and of the layers between them; one layer after the other, on the device.

    Args:
        denoiser: frozen, and without adapters.
        bits: 8: int8 by rows, outliers apart (LLM.int8(), arXiv 2208.07339); 4: nf4 in blocks of 64.
        device: where they are stored.
        precision: of the computation.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    try:
        import bitsandbytes
    except ImportError:
        raise UserError("base_bits needs bitsandbytes; pip install bitsandbytes, or leave base_bits out.") from None
    for name in quantized_layers(denoiser.state_dict()):
        layer = denoiser.get_submodule(name)
        if type(layer) is not nn.Linear:
            continue  # a convolution, or quantized before
        sizes = (layer.in_features, layer.out_features, layer.bias is not None)
        if bits == 4:
            stored = bitsandbytes.nn.Linear4bit(*sizes, compute_dtype=precision, quant_type="nf4", device="meta")
            stored.weight = bitsandbytes.nn.Params4bit(layer.weight.data, quant_type="nf4")
        else:
            stored = bitsandbytes.nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0, device="meta")
            stored.weight = bitsandbytes.nn.Int8Params(layer.weight.data, requires_grad=False)
        stored.bias = layer.bias
        denoiser.set_submodule(name, stored.to(device).requires_grad_(False).eval())
    denoiser.is_loaded_in_4bit, denoiser.is_loaded_in_8bit = bits == 4, bits == 8  # type: ignore[assignment]
