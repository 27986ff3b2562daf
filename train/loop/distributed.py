"""Distributed training: each process trains on its share of every batch, so all have the same weights at each step.

torchrun or `accelerate launch` starts the processes and gives each its rank. A process started alone is a group of one,
and runs the same code.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from dreamloom.base import processes
from dreamloom.base.errors import UserError
from dreamloom.train.data.schedule import Batch, Slot, Step
from dreamloom.train.loop.interrupt import Interrupted

Result = TypeVar("Result")

TIMEOUT = timedelta(days=7)
"""How long processes wait for one that encodes, evaluates or draws. The launcher notices at once if one dies."""

_group_numbers = count()
"""Tells apart the groups that a process joins, one for each call of train."""


@dataclass(frozen=True)
class DistributedGroup:
    """The processes that train one model, and this process's rank among them."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that evaluates, draws and writes."""
        return self.rank == 0

    def shard(self, step: Step) -> list[Batch]:
        """Returns this process's part of a step: an equal part of each slot, as far as it can be divided.

        A process that a run's last step has no image for gets one without weight, as all have to take part.
        """
        batches = [part for slot in step for part in self._shard_slot(slot)]
        return batches or [replace(step[0][0].part(0, 1), padding=1)]

    def _shard_slot(self, slot: Slot) -> Iterator[Batch]:
        count = sum(len(batch.sample_ids) for batch in slot)
        begin, end = count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size
        for batch in slot:
            part = batch.part(max(begin, 0), max(end, 0))
            begin, end = begin - len(batch.sample_ids), end - len(batch.sample_ids)
            if part.sample_ids:
                yield part

    def any(self, flag: bool) -> bool:
        """Tells whether the flag is set in any process; waits for all of them."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def from_main(self, compute: Callable[[], Result]) -> Result:
        """Computes something in the main process, and returns it in all of them, which wait for it.

        Raises:
            Interrupted: the main process was interrupted.
        """
        if self.world_size == 1:
            return compute()
        results: list[Result | None] = [None]
        if self.is_main:
            with suppress(Interrupted):
                results = [compute()]
        dist.broadcast_object_list(results, src=0, device=torch.device("cpu"))
        if results[0] is None:
            raise Interrupted
        return results[0]

    def mean(self, value: Tensor) -> Tensor:
        """Averages a tensor on the device over the processes, without waiting for the device."""
        if self.world_size > 1:
            dist.all_reduce(value)
            value /= self.world_size
        return value

    def wrap(self, module: nn.Module) -> nn.Module:
        """Returns the module, with gradients that are averaged over the processes."""
        return DistributedDataParallel(module, forward_sync_buffers=False) if self.world_size > 1 else module

    def no_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """Accumulates the gradients of a wrapped module inside the block, without averaging them."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Runs the block in one process after the other, the main one first.

        Raises:
            Interrupted: one of them was interrupted in the block.
        """
        self._wait(self.rank)
        try:
            yield
        except Interrupted:
            self.any(True)
            raise
        self._wait(self.world_size - self.rank)

    def _wait(self, turns: int) -> None:
        for _ in range(turns):
            if self.any(False):
                raise Interrupted


SINGLE_PROCESS = DistributedGroup()
"""The group of a process that was started alone."""


@contextmanager
def join_group(device: torch.device, batch_size: int) -> Iterator[DistributedGroup]:
    """Joins the process group for the duration of the block.

    Raises:
        UserError: a batch can't be divided among the processes.
    """
    if processes.world_size() == 1:
        yield SINGLE_PROCESS
        return
    if batch_size % processes.world_size():
        raise UserError(
            f"batch_size is {batch_size}, which {processes.world_size()} processes can't share; make it a multiple."
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, world_size = next(rendezvous("env://", timeout=TIMEOUT))
    own_store = PrefixStore(f"group {next(_group_numbers)}", store)  # torchrun's still holds the last group's keys
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=own_store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    yield DistributedGroup(dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()  # not after an error: it would wait for processes that never arrive
