"""The processes that train one model, each on its share of every batch, so that all have the same weights at each step.

torchrun or `accelerate launch` starts them and tells each its place. A process that was started alone is one of one,
and goes through the same code.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dreamloom.base import processes
from dreamloom.base.errors import UserError
from dreamloom.train.data.schedule import Batch
from dreamloom.train.loop.interrupt import Interrupted

PATIENCE = timedelta(days=7)
"""How long the others wait for one that encodes, measures or draws; who dies is noticed by the launcher at once."""


@dataclass(frozen=True)
class Together:
    """This process's place among those that train one model."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that measures, draws and writes."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """This process's part of a batch."""
        each = len(batch.sample_ids) // self.count
        begin = self.rank * each
        return replace(batch, sample_ids=batch.sample_ids[begin : begin + each], first_index=batch.first_index + begin)

    def any(self, flag: bool) -> bool:
        """Whether it is so for any of the processes; each waits here for all."""
        if self.count == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes, of a tensor on the device; nobody waits for the device."""
        if self.count > 1:
            dist.all_reduce(value)
            value /= self.count
        return value

    def synchronized(self, module: nn.Module) -> nn.Module:
        """The module, whose gradients are from now on the mean over the processes."""
        return DistributedDataParallel(module, forward_sync_buffers=False) if self.count > 1 else module

    def alone(self, module: nn.Module) -> AbstractContextManager[None]:
        """Within, the gradients of a synchronized module stay each process's own, and add up."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Within is one process after the other, the main one first.

        Raises:
            Interrupted: one of them was interrupted in it.
        """
        self._pass_on(self.rank)
        try:
            yield
        except Interrupted:
            self.any(True)
            raise
        self._pass_on(self.count - self.rank)

    def _pass_on(self, turns: int) -> None:
        for _ in range(turns):
            if self.any(False):
                raise Interrupted


ALONE = Together()


@contextmanager
def join(device: torch.device, batch: int) -> Iterator[Together]:
    """Within, this process is together with those that were started with it.

    Raises:
        UserError: a batch can't be divided among them.
    """
    if processes.world_size() == 1:
        yield ALONE
        return
    if batch % processes.world_size():
        raise UserError(
            f"batch_size is {batch}, which {processes.world_size()} processes can't share; make it a multiple."
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield Together(dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()  # not after an error: it would wait for those that never come
