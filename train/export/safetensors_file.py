"""Writes a safetensors file whose header holds the hash of its tensors."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

HASH = "0" * 64
"""Stands in metadata for the SHA-256 of all bytes behind the header, in hex digits, until these are written."""


def save_with_hash(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file; each HASH in its metadata becomes the hash of what lies behind the header.

    ModelSpec's hash_sha256 and kohya's sshs_model_hash are this hash.
    """
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    save_file(contiguous, file, metadata={"format": "pt", **metadata})
    with file.open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = stream.read(size)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(8)
        stream.write(header.replace(HASH.encode(), digest.encode()))
