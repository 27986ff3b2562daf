"""Reads the tensors of a model in a single file: a .safetensors, or a .ckpt, safely."""

import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamloom.base.errors import UserError
from dreamloom.base.models.weights import check_weights


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Reads all tensors of a file.

    Raises:
        UserError: the file can't be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        _check_archive(file)
        content = torch.load(file, map_location="cpu", weights_only=False, pickle_module=_SafePickle)
    except (*_UNREADABLE, SafetensorError) as error:
        raise UserError(f"{file} can't be read ({error}); copy it again.") from error
    entries = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: value for name, value in entries.items() if isinstance(value, Tensor)}


def _check_archive(file: Path) -> None:
    """Checks that a file is a zip to torch, which looks at its first bytes, and to zipfile, which looks at its last.

    Raises:
        UserError: the file is a bare pickle, holds a TorchScript program, or is none of weights.
        zipfile.BadZipFile: the file is truncated.
    """
    check_weights([file])
    with file.open("rb") as stream:
        is_weights = stream.read(4) == b"PK\3\4"
    if is_weights:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed, as torch never does")
            is_weights = not any(entry.filename.endswith("constants.pkl") for entry in entries)
            for entry in entries:
                if entry.filename.endswith("data.pkl"):
                    _check_memo(archive.read(entry))
    if not is_weights:
        raise UserError(
            f"{file} is a pickle from before torch 1.6, or a TorchScript program; convert it to safetensors."
        )


def _check_memo(data: bytes) -> None:
    """Checks that a pickle numbers what it remembers from 0: pickle makes room for the highest number it is told.

    Raises:
        ValueError: it does not, or it is cut short.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise ValueError("its pickle asks for memory that it does not fill")


_UNREADABLE = (
    *(OSError, RuntimeError, ValueError, EOFError, TypeError, LookupError, AttributeError, MemoryError),
    *(pickle.PickleError, zipfile.BadZipFile, zipfile.LargeZipFile),
)
"""What reading a damaged or hostile file may raise."""


class _Placeholder:
    """Stands for any other object of a pickle, such as a training framework's callbacks; it is built and dropped."""

    def __new__(cls, *_: object, **__: object) -> "_Placeholder":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...


_TENSORS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("collections", "OrderedDict"),
    ("torch", "Size"),
}
"""The functions and classes that a pickle of tensors needs; torch itself loads the storages."""


class _SafePickle:
    """A pickle module for torch.load and untrusted files: nothing that they name is called, except _TENSORS."""

    class Unpickler(pickle.Unpickler):
        """Unpickles tensors and plain values; anything else becomes a _Placeholder."""

        def find_class(self, module: str, name: str) -> Any:
            """Returns the class or function that the pickle names, where it is allowed."""
            return super().find_class(module, name) if (module, name) in _TENSORS else _Placeholder
