"""The device that models run on and their precision: the config fields, and what torch makes of them."""

import contextlib
import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from dreamloom.base.cpu import has_bf16, keep_freed_memory
from dreamloom.base.errors import UserError
from dreamloom.base.stage import NO_RECIPE

if TYPE_CHECKING:
    import torch


def _check_name(name: str) -> str:
    if not re.fullmatch(r"auto|(cpu|cuda|mps|xpu)(:\d+)?", name):
        raise ValueError(f"{name!r} is no device; valid: auto, cpu, cuda, cuda:1, mps")
    return name


DeviceName = Annotated[
    str,
    NO_RECIPE,
    AfterValidator(_check_name),
    Field(description="auto, cpu, cuda, cuda:1 or mps; auto: a GPU if there is one."),
]
"""The field `device` of a config, which means the same in all stages."""


PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
"""Values of the field `precision` of a config; each says what auto is."""


def prepare_device(name: str) -> str:
    """Imports torch, and returns the device of a scoring or captioning model: for auto, a CUDA GPU or the CPU.

    Raises:
        UserError: there is no such device.
    """
    if not name.startswith("cuda"):
        keep_freed_memory()  # before torch is imported
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    find_device(name)
    return name


def find_device(name: str) -> "torch.device":
    """Returns a device by torch's name for it.

    Raises:
        UserError: there is no such device.
    """
    import torch

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"There is no device {name!r} on this machine; set device to auto.") from error


def choose_precision(name: PrecisionName, device: "str | torch.device", bf16_on_cpu: bool = False) -> "torch.dtype":
    """Returns the precision that a config names; for auto, bfloat16 where the GPU computes in it, else float32.

    GPUs before Ampere only emulate bfloat16, which makes it slower than float32; float16 is for these.

    Args:
        name: the value of the field.
        device: where the computation runs.
        bf16_on_cpu: whether auto takes bfloat16 on processors that have it. Captioning gains by it. Training does not:
            forward and backward, bfloat16 was measured at 1.3 times float32's speed for UNets of 4 and 37 M parameters,
            and at 0.8 to 0.9 times for those of 220 and 860 M (2 cores of an AMD EPYC with avx512_bf16).
    """
    import torch

    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name in named:
        return named[name]
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device) if device.index is not None else contextlib.nullcontext():
            is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        is_native = device.type == "cpu" and bf16_on_cpu and has_bf16()
    return torch.bfloat16 if is_native else torch.float32
