"""Reads what the header of a safetensors file tells of its tensors, names, shapes and dtypes, and its metadata."""

from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.models.weights import read_safetensors_header


def read_tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of a safetensors file's tensors, by name; only its header is read.

    Raises:
        UserError: it is not a safetensors file.
    """
    header = read_safetensors_header(file)
    try:
        return {name: _shape(about["shape"]) for name, about in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a safetensors file (a tensor has no shape); copy it again.") from error


def read_dtypes(file: Path) -> dict[str, str]:
    """Reads the dtypes of a safetensors file's tensors, by name, as the format calls them, such as F16 or F8_E4M3.

    Raises:
        UserError: it is not a safetensors file.
    """
    header = read_safetensors_header(file)
    return {name: str(about.get("dtype")) for name, about in header.items() if name != "__metadata__"}


def read_metadata(file: Path) -> dict[str, str]:
    """Reads the metadata of a safetensors file; empty for any other file.

    Raises:
        UserError: it is called .safetensors, and is none.
    """
    if file.suffix != ".safetensors" or not file.is_file():
        return {}
    metadata = read_safetensors_header(file).get("__metadata__")
    return {key: str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 8 or not all(type(side) is int and side >= 0 for side in value):
        raise ValueError(value)
    return tuple(value)
