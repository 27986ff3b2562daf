"""Finds the weights of a component in its folder, whatever variant they were published as, and reads their shapes."""

import re
from pathlib import Path

from dreamloom.base.weights import check_weights
from dreamloom.train.model.safetensors_header import read_tensor_shapes

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model|pytorch_model)(?:\.(\w+))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)"
)


def weight_variant(folder: Path) -> str | None:
    """Returns the variant to load a component's weights of, such as fp16; None where there are weights without one."""
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    variants = {match[1] for name in names if (match := _WEIGHTS.fullmatch(name))}
    if not variants or None in variants:
        return None
    return "fp16" if "fp16" in variants else min(variants)


def list_weights(folder: Path) -> list[Path]:
    """Returns the files of a component's weights, those of `weight_variant` alone."""
    variant = weight_variant(folder)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in files if (match := _WEIGHTS.fullmatch(file.name)) and match[1] == variant]


def list_safetensors(folder: Path) -> list[Path]:
    """Returns the safetensors files among `list_weights`."""
    return [file for file in list_weights(folder) if file.suffix == ".safetensors"]


def check_component_weights(folder: Path) -> None:
    """Checks the files that a component is loaded from: its safetensors, else the others. Reads only headers.

    Raises:
        UserError: one is no file of weights, or not all of it is there.
    """
    check_weights(list_safetensors(folder) or list_weights(folder))


def read_component_shapes(base: str, part: str) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of a component's weights in a diffusers folder, by name; empty for any other base.

    Raises:
        UserError: a file is no safetensors file.
    """
    files = list_safetensors(Path(base).expanduser() / part)
    return {name: shape for file in files for name, shape in read_tensor_shapes(file).items()}
