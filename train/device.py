"""Where the arithmetic is done, and in which precision."""

from contextlib import AbstractContextManager

import torch

from base.errors import UserError


def choose_device(wanted: str) -> torch.device:
    """The device a config names; auto: the first GPU, else Apple's, else the processor.

    Raises:
        UserError: there is no such device.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=wanted).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"There is no device {wanted!r} on this machine; set device to auto.") from error


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16; auto takes bfloat16 on a GPU that has it.

    On a processor auto stays with float32: at the sizes one can train there, bfloat16 was measured to gain nothing.
    """
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bf16" else torch.float32
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Arithmetic in `precision`; weights stay as they are."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)
