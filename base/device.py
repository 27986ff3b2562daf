"""The device that models run on: the config field that names it, and what torch makes of the name."""

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from dreamloom.base.cpu import keep_freed_memory
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


PrecisionName = Literal["auto", "fp32", "bf16"]
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
