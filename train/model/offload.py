"""Keeps the layers of a frozen denoiser in the CPU's memory, under adapters, for GPUs that they do not fit."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamloom.train.model.lora_layers import layers_in_blocks


def keep_on_cpu(denoiser: nn.Module, device: torch.device) -> None:
    """Replaces the matrices of its blocks by such as are copied to the device when they are needed.

    Args:
        denoiser: frozen, on the CPU, and without adapters.
        device: where it computes.
    """
    for name in layers_in_blocks(denoiser.state_dict()):
        layer = denoiser.get_submodule(name)
        if type(layer) is nn.Linear:
            denoiser.set_submodule(name, _LinearOnCPU(layer, pinned=device.type == "cuda"))


class _LinearOnCPU(nn.Linear):
    """A frozen layer whose weights stay on the CPU, whatever its model is moved to.

    Args:
        layer: the one whose weights it takes.
        pinned: whether they lie in memory from which a GPU copies fast.
    """

    def __init__(self, layer: nn.Linear, pinned: bool) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        for name, value in layer.named_parameters():
            data = value.data.cpu()
            setattr(self, name, nn.Parameter(data.pin_memory() if pinned else data, requires_grad=False))
        self.eval()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        return self

    def forward(self, input: Tensor) -> Tensor:
        """Computes the layer on the device of its input."""
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))
        with torch.autocast(input.device.type, enabled=False):
            output: Tensor = _Copied.apply(input, self.weight, self.bias)
        return output


class _Copied(torch.autograd.Function):
    """A linear function that keeps no copy of its weights until the backward pass."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Copies the weights, and multiplies by them."""
        ctx.weight = weight
        copied = bias if bias is None else bias.to(input, non_blocking=True)
        return F.linear(input, weight.to(input, non_blocking=True), copied)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Copies the weights again; they are frozen, so the input alone gets a gradient."""
        (gradient,) = gradients
        return gradient @ ctx.weight.to(gradient, non_blocking=True), None, None
