"""Distributed training: each process trains on its share of every batch, so all have the same weights at each step.

torchrun or `accelerate launch` starts the processes, on one machine or several, and gives each its rank. A process
started alone is a group of one, and runs the same code. Imports torch only where there are several.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dreamloom.base import processes
from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import make_folder, temporary_name
from dreamloom.train.data.schedule import Batch, Slot, Step
from dreamloom.train.loop.interrupt import Interrupted
from dreamloom.train.loop.peers import Peers

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch._C._distributed_c10d import Store

Result = TypeVar("Result")

TIMEOUT = timedelta(days=7)
"""How long processes wait for one that encodes, evaluates or draws. If one dies, its launcher notices at once, and
those of other machines do by dreamloom.train.loop.peers."""
MEETING = timedelta(minutes=30)
"""How long processes wait for each other at the start."""
APPEARANCE_S = 20.0
"""How long a new file in a shared folder may take to be seen from another machine."""

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

    def shard_evenly(self, step: Step) -> list[Batch]:
        """Returns as many batches in each process, some without weight: those that share weights compute together."""
        most = max(len(replace(self, rank=rank).shard(step)) for rank in range(self.world_size))
        own = self.shard(step)
        return own + [replace(step[0][0].part(0, 1), padding=1)] * (most - len(own))

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
        import torch
        import torch.distributed as dist

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
        import torch
        import torch.distributed as dist

        results: list[Result | None] = [None]
        if self.is_main:
            with suppress(Interrupted):
                results = [compute()]
        dist.broadcast_object_list(results, src=0, device=torch.device("cpu"))
        if results[0] is None:
            raise Interrupted
        return results[0]

    def mean(self, value: "Tensor") -> "Tensor":
        """Averages a tensor on the device over the processes, without waiting for the device."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.all_reduce(value)
            value /= self.world_size
        return value

    def wrap(self, module: "nn.Module") -> "nn.Module":
        """Returns the module, with gradients that are averaged over the processes."""
        if self.world_size == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(module, forward_sync_buffers=False)

    def no_sync(self, module: "nn.Module") -> AbstractContextManager[None]:
        """Accumulates the gradients of a wrapped module inside the block, without averaging them."""
        if self.world_size == 1:
            return nullcontext()
        from torch.nn.parallel import DistributedDataParallel

        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    @contextmanager
    def in_turn(self, machines_at_once: bool = False) -> Iterator[None]:
        """Runs the block in the main process, then in one of each other machine, then in all others.

        So what the block leaves in a cache, which may be shared or each machine's own, is there for those that follow.

        Args:
            machines_at_once: the first process of each machine does not wait for the main one.

        Raises:
            Interrupted: one of them was interrupted in the block.
        """
        is_first = self.is_main or (machines_at_once and processes.local_rank() == 0)
        turn = 0 if is_first else 1 if processes.local_rank() == 0 else 2
        self._wait(turn)
        try:
            yield
        except Interrupted:
            self.any(True)
            raise
        self._wait(_TURNS - turn)

    def _wait(self, turns: int) -> None:
        for _ in range(turns):
            if self.any(False):
                raise Interrupted

    def check_same(self, recipe: str, folder: Path) -> None:
        """Checks that all processes read the same training folder, models and settings.

        Raises:
            UserError: this one does not, but the main one.
        """
        if self.from_main(lambda: recipe) != recipe:
            raise UserError(
                f"{folder} or a model holds something else here than for the main process; all machines must see the "
                "same files at the same paths, or at the same address."
            )
        self.any(False)  # so that nobody goes on before all have looked

    def check_seen(self, run: Path) -> None:
        """Checks that the processes of all machines see the folder that the main one writes to; makes it.

        Raises:
            UserError: this one does not see it.
        """
        if processes.local_world_size() == self.world_size:
            return
        mark = run / self.from_main(lambda: _leave_mark(run))
        until = time.monotonic() + APPEARANCE_S
        while not mark.exists():
            if time.monotonic() > until:
                raise UserError(
                    f"{run} is not what the main process sees there; name a folder for the run that all machines "
                    "share, at the same path."
                )
            time.sleep(0.1)
        self.any(False)
        if self.is_main:
            mark.unlink()


def _leave_mark(run: Path) -> str:
    make_folder(run)
    name = temporary_name()
    (run / name).touch()
    return name


_TURNS = 3

SINGLE_PROCESS = DistributedGroup()
"""The group of a process that was started alone."""


def check_batch_size(batch_size: int) -> None:
    """Checks that a batch can be divided among the processes.

    Raises:
        UserError: it can't.
    """
    if batch_size % processes.world_size():
        raise UserError(
            f"batch_size is {batch_size}, which {processes.world_size()} processes can't share; make it a multiple."
        )


@contextmanager
def join_group(device: str) -> Iterator[DistributedGroup]:
    """Joins the process group for the duration of the block, in which an error of one process ends all.

    Args:
        device: of the config.

    Raises:
        UserError: not all of them came, or another one ended.
    """
    if processes.world_size() == 1:
        yield SINGLE_PROCESS
        return
    import torch
    import torch.distributed as dist

    from dreamloom.train.model.device import choose_device

    if (chosen := choose_device(device)).type == "cuda":
        torch.cuda.set_device(chosen)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    rank, world_size = processes.rank(), processes.world_size()
    with Peers(_meet()) as peers:
        dist.init_process_group(backend, store=peers.store, rank=rank, world_size=world_size, timeout=TIMEOUT)
        yield DistributedGroup(rank, world_size)
    dist.destroy_process_group()  # not after an error: it would wait for processes that never arrive


def _meet() -> "Store":
    """Returns the store by which the processes find each other, once all are there."""
    from torch.distributed import DistError
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous("env://", timeout=MEETING))
    except (DistError, ValueError) as error:  # ValueError: no address in the environment
        raise UserError(
            f"The {processes.world_size()} training processes did not find each other within "
            f"{MEETING.total_seconds() / 60:.0f} minutes ({' '.join(str(error).split())[:200]}); start the launcher on "
            "all machines, with the same address and port, which no firewall may close."
        ) from error
    store.set_timeout(TIMEOUT)
    return PrefixStore(f"group {next(_group_numbers)}", store)  # torchrun's still holds the last group's keys
