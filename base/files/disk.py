"""Turns the errors of a disk that is full or not writable into one sentence for the user."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamloom.base.errors import UserError


@contextmanager
def explain_write_errors(path: Path, advice: str) -> Iterator[None]:
    """Turns errors of writing tensors to `path` in the block into a UserError.

    Args:
        advice: what the user can do, the end of the sentence.

    Raises:
        UserError: `path` can't be written.
    """
    from safetensors import SafetensorError  # imported here, as only writers of tensors have it loaded

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} can't be written ({error}); {advice}.") from error
    except RuntimeError as error:
        if "inline_container" not in str(error):  # torch.save's error when the disk took less than it wrote
            raise
        raise UserError(f"{path} can't be written (the disk is full); {advice}.") from error


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turns the error of a full disk in the block, which writes into `folder`, into a UserError.

    Raises:
        UserError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(f"The disk of {folder} is full; make room and run again: what was saved is there.") from error
