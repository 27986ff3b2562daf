"""The device of a computation, its memory, and autocast."""

import resource
import sys
from contextlib import AbstractContextManager

import torch
from torch import nn

from dreamloom.base import processes
from dreamloom.base.models.device import find_device


def choose_device(name: str) -> torch.device:
    """Chooses the device that a config names.

    Of several processes on a machine with GPUs, each gets its own.

    Args:
        name: a torch device, or auto: the first CUDA GPU, else Apple's GPU, else the CPU.

    Raises:
        UserError: there is no such device.
    """
    if processes.world_size() > 1 and torch.cuda.is_available() and name in ("auto", "cuda"):
        return torch.device("cuda", processes.local_rank())
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    return find_device(name)


def store_matrices(network: nn.Module, precision: torch.dtype) -> None:
    """Stores the weights of linear layers and convolutions in the precision that `autocast` casts them to.

    What the network computes in such a block stays the same to the bit. The weights of norms and embeddings are not
    cast there, and stay as they are.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.to(precision)


def peak_memory(device: torch.device) -> int:
    """Measures the peak memory in bytes: of the GPU, or of this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Runs the operations in the block in `precision`; weights stay as they are."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)
