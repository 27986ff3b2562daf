"""A training folder at an address: what of it is read as if it lay in a folder of this machine.

    s3://bucket/set/people/00000.tar       shards, of which a local folder gets an empty file each
                           multiply.txt    EveryDream's control files, which are copied there

Images that are not in shards, and captions beside them, are not read.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from dreamloom.base.errors import UserError
from dreamloom.base.files.image_types import is_image_name
from dreamloom.base.files.listing import is_left_out
from dreamloom.base.files.own_folders import refuse_own_address
from dreamloom.base.files.remote_files import list_files, read_range, state_of
from dreamloom.base.tables.documents import MAX_BYTES
from dreamloom.caption.filename import find_controls
from dreamloom.train.data.notes import Notes
from dreamloom.train.data.shards import SHARD_SUFFIX

_LONGEST = 255
"""Bytes of a name in most file systems."""
_UNFIT = "files with names that no folder can hold"


def list_shards(address: str, notes: Notes) -> tuple[list[str], list[str]]:
    """Lists the shards at an address, and the other files, by their paths below it.

    Args:
        address: the training folder.
        notes: is told of names that are left out.

    Raises:
        UserError: it can't be listed, holds no shard, or is a collection.
    """
    names = [name for name in list_files(address) if not is_left_out(name)]
    for name in list(names):
        if any(part in ("", ".", "..") or len(part.encode()) > _LONGEST for part in name.split("/")):
            names.remove(name)
            notes(_UNFIT, name)
    refuse_own_address(address, names)
    shards = [name for name in names if name.lower().endswith(SHARD_SUFFIX)]
    if not shards:
        loose = sum(map(is_image_name, names))
        found = f", but {loose:,} images that are not in any" if loose else ""
        raise UserError(
            f"{address} holds no shards (.tar){found}; make some with `dreamloom caption convert FOLDER --to "
            "webdataset --output SHARDS`, and copy that folder there."
        )
    return shards, sorted({*names} - {*shards})


def lay_out(address: str, shards: Iterable[str], others: Iterable[str], folder: Path, notes: Notes) -> None:
    """Fills a local folder with an empty file for each shard, and with the control files.

    Args:
        address: the training folder.
        shards: the paths of its shards, below it.
        others: those of its other files.
        folder: an empty folder.
        notes: is told what is not read.

    Raises:
        UserError: a control file can't be read.
    """
    for name in shards:
        _write(folder, name, b"", notes)
    for name in others:
        file = f"{address}/{name}"
        if find_controls([PurePosixPath(name).name]) and state_of(file).size <= MAX_BYTES:
            _write(folder, name, read_range(file), notes)
        elif is_image_name(name):
            notes("images that are not in shards, and are not read at an address", name)


def _write(folder: Path, name: str, content: bytes, notes: Notes) -> None:
    try:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    except (OSError, ValueError):  # one that is also a folder, or has a NUL
        notes(_UNFIT, name)
