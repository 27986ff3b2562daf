"""The device that scoring and captioning models run on."""

from typing import Literal

from dreamloom.base.cpu import keep_freed_memory
from dreamloom.base.errors import UserError

Device = Literal["auto", "cpu", "cuda"]


def prepare_device(device: Device, model: str) -> str:
    """Imports torch, and returns the device as torch names it: for auto, the GPU if there is one.

    Args:
        device: As a config names it.
        model: What is to run there, for the error.

    Raises:
        UserError: there is no GPU, though the config asks for one.
    """
    if device != "cuda":
        keep_freed_memory()  # before torch is imported
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{model}: device is cuda, but torch sees no GPU; leave it at auto, or set it to cpu.")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
