"""Stops a run before the disk is full, while there is room to save what it has."""

import shutil
from pathlib import Path

from dreamloom.base.errors import UserError

RESERVE = 10**9
"""Bytes that stay free: for a checkpoint's last files, logs, and the other programs of the machine."""


def free_bytes(folder: Path) -> int:
    """Returns the free space where a folder lies, or will lie."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free


def require_free_space(folder: Path, needed: int = 0) -> None:
    """Refuses to go on where too little space is left.

    Args:
        folder: where something is to be written.
        needed: bytes that will be written, as far as they are known.

    Raises:
        UserError: after that, less than RESERVE would be free.
    """
    free = free_bytes(folder)
    if free < RESERVE + needed:
        wanted = f"{needed / 1e9:.1f} GB are to be written, and " if needed else ""
        raise UserError(
            f"{free / 1e9:.1f} GB are free on the disk of {folder}; {wanted}{RESERVE / 1e9:.0f} GB stay free. Make "
            "room (`dreamloom clean`, `dreamloom prune`) and run again: what is finished stays."
        )
