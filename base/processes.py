"""The place of this process among those that torchrun or `accelerate launch` started."""

import os


def world_size() -> int:
    """Returns the number of processes; 1 where no launcher started several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Returns this process's number, from 0."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def local_rank() -> int:
    """Returns this process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0


def local_world_size() -> int:
    """Returns the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size()))) if world_size() > 1 else 1


def is_main() -> bool:
    """Returns whether this is the process that writes and prints."""
    return rank() == 0
