"""The optimizer's state by shards, each written by a process that holds some rows: torch.distributed.checkpoint.

    <checkpoint>/optimizer/__0_0.distcp …    "index of the parameter.name" → the rows of one process
                           .metadata         where each lies

Any number of processes reads it again.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

Place = Callable[[int, Sequence[int], torch.dtype], Tensor]
"""Makes room for a tensor of this size, or for some rows of it; the first argument is the parameter's index."""


def write_shards(tensors: Mapping[str, DTensor], folder: Path) -> None:
    """Writes tensors that are shared among the processes, which all call this."""
    save(dict(tensors), storage_writer=FileSystemWriter(folder))


def read_shards(folder: Path, place: Place) -> dict[int, dict[str, Tensor]]:
    """Reads the tensors, or the rows of this process: index of the parameter → name → tensor."""
    reader = FileSystemReader(folder)
    stored = reader.read_metadata().state_dict_metadata
    tensors = {
        key: place(int(key.split(".")[0]), kind.size, kind.properties.dtype)
        for key, kind in stored.items()
        if isinstance(kind, TensorStorageMetadata)
    }
    load(dict(tensors), storage_reader=reader, no_dist=True)
    found: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        found.setdefault(int(index), {})[name] = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return found


def place_whole(index: int, size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Makes room for a whole tensor, on the CPU."""
    return torch.empty(tuple(size), dtype=dtype)
