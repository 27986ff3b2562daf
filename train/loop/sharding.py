"""Shares the weights that learn among the processes (FSDP2): each holds some rows of every one, and of its gradient.

Before a layer computes, its weights are gathered; after it, they are dropped again. The optimizer and the average see
the rows of their process alone, so they must treat each number by itself.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard

from dreamloom.train.loop.distributed import DistributedGroup
from dreamloom.train.model.model import Model
from dreamloom.train.model.trainable import NamedParameters
from dreamloom.train.run.optimizer_shards import write_shards

OptimizerState = dict[str, Any]
"""What an optimizer's `state_dict` returns."""


class Sharding:
    """The weights of a model, shared among the processes.

    Args:
        model: its components that learn are changed in place.
        parts: the parameters that learn, by component and name (dreamloom.train.model.trainable).
        group: the processes.
    """

    def __init__(self, model: Model, parts: Mapping[str, NamedParameters], group: DistributedGroup) -> None:
        self.group = group
        self.mesh = init_device_mesh(model.device.type, (group.world_size,))
        self.layers: list[FSDPModule] = []
        self.roots: list[FSDPModule] = []
        model.is_sharded = True
        for part in parts:
            module = model.components[part].to(memory_format=torch.contiguous_format)  # FSDP takes no other
            for layer in reversed(list(_layers(module))):  # those inside of others first
                self.layers.append(fully_shard(layer, mesh=self.mesh))
            self.roots.append(fully_shard(module, mesh=self.mesh, reshard_after_forward=False))
        named = {f"{part}.{name}": value for part in parts for name, value in model.components[part].named_parameters()}
        self.shared = [named[name] for part in parts.values() for name in part]
        rows = iter([nn.Parameter(_rows(value)) for value in self.shared])
        self.parts: dict[str, NamedParameters] = {
            part: {name: next(rows) for name in names} for part, names in parts.items()
        }
        """The rows of this process, in the memory of the model's weights."""
        self.own = [value for part in self.parts.values() for value in part.values()]

    def take_gradients(self) -> None:
        """Hands the gradients of a backward pass to the rows of this process."""
        for shared, own in zip(self.shared, self.own, strict=True):
            own.grad = None if shared.grad is None else _rows(shared.grad)
            shared.grad = None

    def total_norm(self, norm: Tensor) -> Tensor:
        """Computes the norm over all processes, from that of this one's rows."""
        squared = norm.square()
        dist.all_reduce(squared)
        return squared.sqrt()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Gathers all weights, so that in the block each process computes alone. All processes must enter it."""
        for layer in self.layers:
            layer.set_reshard_after_forward(False, recurse=False)
        for layer in (*self.roots, *self.layers):
            layer.unshard()
        try:
            yield
        finally:
            for layer in self.layers:
                layer.set_reshard_after_forward(True, recurse=False)
            for layer in (*self.roots, *self.layers):
                layer.reshard()

    @contextmanager
    def holding(self, own: Sequence[Tensor] | None) -> Iterator[None]:
        """Puts other rows in place of the weights', if there are any, and gathers all; see `gathered`."""
        before = None if own is None else [value.clone() for value in self.own]
        self._put(own)
        try:
            with self.gathered():
                yield
        finally:
            self._put(before)

    @torch.no_grad()
    def _put(self, rows: Sequence[Tensor] | None) -> None:
        for value, new in zip(self.own, rows or (), strict=rows is not None):
            value.copy_(new)

    def gather(self, names: Iterable[str], own: Iterable[Tensor]) -> dict[str, Tensor]:
        """Returns whole tensors by name, on the CPU: in the main process; in the others an empty dict.

        Args:
            names: of the parameters.
            own: this process's rows of something that has the shape of the parameters, such as an average.
        """
        found: dict[str, Tensor] = {}
        for name, shared, rows in zip(names, self.shared, own, strict=True):
            whole = self._shared(rows.detach().to(shared.device), shared.shape[0]).full_tensor()
            if self.group.is_main:
                found[name] = whole.cpu()
        return found

    def rows_of(self, whole: Tensor) -> Tensor:
        """Returns this process's rows of a whole tensor."""
        chunks = torch.chunk(whole, self.group.world_size)
        return chunks[self.group.rank] if self.group.rank < len(chunks) else whole[:0]

    def write_optimizer(self, state: OptimizerState, folder: Path | None) -> None:
        """Writes the optimizer's state by shards. All processes must call it.

        Args:
            state: of this process's rows.
            folder: where to; of the main process.
        """
        target = self.group.from_main(lambda: str(folder))
        write_shards(
            {
                f"{index}.{name}": self._shared(value, self.shared[index].shape[0])
                for index, values in state["state"].items()
                for name, value in values.items()
                if self._is_of_rows(index, value)
            },
            Path(target),
        )

    def without_rows(self, state: OptimizerState) -> OptimizerState:
        """Returns what of the optimizer's state all processes have alike."""
        alike = {
            index: {name: value for name, value in values.items() if not self._is_of_rows(index, value)}
            for index, values in state["state"].items()
        }
        return {**state, "state": alike}

    def own_state(self, state: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
        """Returns of the whole state of an optimizer's parameters, by index, what concerns the rows of this process."""
        return {
            index: {
                name: self.rows_of(value) if isinstance(value, Tensor) and value.ndim else value
                for name, value in values.items()
            }
            for index, values in state.items()
        }

    def placed(self, index: int, size: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Makes room for this process's rows of a tensor of the optimizer's state."""
        rows = self.own[index].shape[0]
        return self._shared(torch.empty((rows, *size[1:]), dtype=dtype, device=self.own[index].device), size[0])

    def _is_of_rows(self, index: int, value: Any) -> bool:
        return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == self.own[index].shape[0]

    def _shared(self, rows: Tensor, count: int) -> DTensor:
        shape = torch.Size((count, *rows.shape[1:]))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(rows.contiguous(), self.mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yields the blocks and layers of a network, those that hold others first: what it has in lists, but for leaves."""
    for inner in module.modules():
        if isinstance(inner, nn.ModuleList):
            yield from (layer for layer in inner if next(layer.children(), None) is not None)


def _rows(shared: Tensor) -> Tensor:
    assert isinstance(shared, DTensor)
    rows: Tensor = shared.to_local().detach()
    return rows
