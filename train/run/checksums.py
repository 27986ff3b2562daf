"""Checksums of a checkpoint's files, by which damage is noticed before anything is made of it.

They lie in the checkpoint's `checksums.b2`, as b2sum writes them: `b2sum -c checksums.b2` checks them, too.
"""

import hashlib
import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.versions import RUN
from dreamloom.train.run.folder import list_checkpoints

CHECKSUMS = "checksums.b2"
_LINES = re.compile(r"([0-9a-f]{128}  (optimizer/)?\w*\.\w+\n)+")
SHARDS = "optimizer"
"""The folder of the optimizer's state where processes share it (dreamloom.train.run.optimizer_shards)."""
_THREADS = 4


class DamagedCheckpointError(UserError):
    """A file of a checkpoint is not as it was saved.

    Args:
        checkpoint: the checkpoint.
        damage: which file, and what is wrong with it.
    """

    def __init__(self, checkpoint: Path, damage: str) -> None:
        self.damage = damage
        others = [str(other) for other in list_checkpoints(checkpoint.parent.parent) if other.name != checkpoint.name]
        remedy = f"name another: {', '.join(reversed(others))}" if others else "there is no other, so restore a copy"
        super().__init__(f"The checkpoint {checkpoint} is damaged: {damage}; {remedy}.")


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files in the folder of a new checkpoint."""
    digests = _digests(folder, sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()))
    (folder / CHECKSUMS).write_text(
        "".join(f"{digest}  {name}\n" for name, digest in digests.items()), encoding="utf-8"
    )


def check_files(checkpoint: Path, weights_only: bool = False) -> None:
    """Checks that a checkpoint's files are as they were saved. Those of releases without checksums are taken as whole.

    Args:
        checkpoint: its folder.
        weights_only: do without the optimizer's state.

    Raises:
        DamagedCheckpointError: a file is not as it was saved.
        OSError: a file can't be read.
    """
    try:
        text = (checkpoint / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
        saved = {line[130:]: line[:128] for line in text.splitlines()}
        if not _LINES.fullmatch(text) or not saved.keys() >= {"state.json", "weights.safetensors"}:
            raise DamagedCheckpointError(checkpoint, f"{CHECKSUMS} is not what was written")
        found = _digests(checkpoint, [name for name in saved if not (weights_only and is_optimizers(name))])
    except FileNotFoundError as error:
        missing = str(Path(error.filename).relative_to(checkpoint))
        if missing == CHECKSUMS and "schema" not in _read_state(checkpoint):
            return
        raise DamagedCheckpointError(checkpoint, f"{missing} is missing") from error
    for name, digest in found.items():
        if saved[name] != digest:
            raise DamagedCheckpointError(checkpoint, f"{name} differs from its checksum in {CHECKSUMS}")


def read_images_seen(checkpoint: Path) -> int:
    """Returns the images that a checkpoint's model has seen.

    Raises:
        DamagedCheckpointError: state.json is not what was saved.
        UserError: a newer release wrote it in another way.
    """
    try:
        return int(_read_state(checkpoint)["images_seen"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpointError(checkpoint, "state.json lacks images_seen") from error


def _read_state(checkpoint: Path) -> dict[str, Any]:
    try:
        return RUN.read_json(checkpoint / "state.json")
    except FileNotFoundError as error:
        raise DamagedCheckpointError(checkpoint, "state.json is missing") from error
    except ValueError as error:
        raise DamagedCheckpointError(checkpoint, "state.json can't be read") from error


def is_optimizers(name: str) -> bool:
    """Tells whether a file of a checkpoint, by its path there, holds the optimizer's state."""
    return name == "optimizer.pt" or name.startswith(f"{SHARDS}/")


def _digests(folder: Path, names: Collection[str]) -> dict[str, str]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(_digest, [folder / name for name in names]), strict=True))


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
