"""Which of several processes this is, where torchrun or `accelerate launch` started more than one."""

import os


def world_size() -> int:
    """How many processes work together; 1 where nobody started several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's place among them, from 0."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def local_rank() -> int:
    """Its place among those on this machine: the number of the GPU that is its own."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is the one that writes and speaks."""
    return rank() == 0
