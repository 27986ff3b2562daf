"""A disk that is full, or forbids: what the libraries that write tensors make of it, as one sentence."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamloom.base.errors import UserError


@contextmanager
def explain_write_errors(path: Path, advice: str) -> Iterator[None]:
    """Within, `path` is written.

    Raises:
        UserError: it can't be; the sentence ends with the advice.
    """
    from safetensors import SafetensorError  # for those who write tensors

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} can't be written ({error}); {advice}.") from error
    except RuntimeError as error:
        if "inline_container" not in str(error):  # where torch.save finds that it wrote less than it should have
            raise
        raise UserError(f"{path} can't be written (the disk took too little); {advice}.") from error


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Within, much is written into `folder`.

    Raises:
        UserError: its disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(f"The disk of {folder} is full; make room and run again: what was saved is there.") from error
