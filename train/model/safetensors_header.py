"""Reads the header of a safetensors file: what its tensors are called, their shapes, and its metadata.

A stranger wrote it, so nothing is read that the file can't hold, and nothing is believed.
"""

import json
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError

MAX_HEADER_BYTES = 16 * 2**20
"""Maximum size of a header. Stable Diffusion's is 0.2 MB; safetensors itself allows 100 MB."""


def read_tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of a safetensors file's tensors, by name; only its header is read.

    Raises:
        UserError: it is not a safetensors file.
    """
    header = _read_header(file)
    try:
        return {name: _shape(about["shape"]) for name, about in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a safetensors file (a tensor has no shape); copy it again.") from error


def read_metadata(file: Path) -> dict[str, str]:
    """Reads the metadata of a safetensors file; empty for any other file.

    Raises:
        UserError: it is called .safetensors, and is none.
    """
    if file.suffix != ".safetensors" or not file.is_file():
        return {}
    metadata = _read_header(file).get("__metadata__")
    return {key: str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def _read_header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > min(MAX_HEADER_BYTES, file.stat().st_size - 8):
                raise ValueError("its header is longer than the file or 16 MB")
            header = json.loads(stream.read(size))
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")
    except RecursionError:
        raise UserError(f"{file} is not a safetensors file (its header is nested); copy it again.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a safetensors file ({error}); copy it again.") from error
    return header


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 8 or not all(type(side) is int and side >= 0 for side in value):
        raise ValueError(value)
    return tuple(value)
