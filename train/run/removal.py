"""Removes runs and optimizers' states that nobody needs any more. Nothing that is not ours is touched."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_text, temporary_name
from dreamloom.base.files.own_folders import own_folder_kind
from dreamloom.train.run.checksums import CHECKSUMS, SHARDS, is_optimizers
from dreamloom.train.run.folder import list_checkpoints

OPTIMIZER = "optimizer.pt"
_OURS = {
    "": (
        r"config\.json|images\.parquet|environments\.json|evaluation\.json|problems\.json|summary\.json|log\.jsonl|"
        r"learned_forgotten\.png|samples\.png|checkpoints|samples|models|logs|\.recipe|\.lock"
    ),
    "checkpoints": r"\d+|damaged-\d+(-\d+)?",
    "samples": r"\d+\.png",
    "models": r"\d+(\.safetensors)?|.*\.(safetensors|yaml|json)",
}
"""Folder in a run → the names that a run writes there. In others, such as logs/, all is the run's."""
_TEMPORARY = r"\.tmp-.*"


def foreign_files(run: Path) -> list[Path]:
    """Returns what lies in a run's folder and is no part of a run, such as notes of the user."""
    return [
        entry
        for name, ours in _OURS.items()
        for entry in _entries(run / name)
        if not re.fullmatch(f"{ours}|{_TEMPORARY}", entry.name)
    ]


def optimizer_bytes(run: Path) -> int:
    """Returns the bytes of the optimizer's states in a run's checkpoints: what only `continue` needs."""
    files = (file for each in list_checkpoints(run) for file in (each / OPTIMIZER, *(each / SHARDS).glob("*")))
    return sum(file.stat().st_size for file in files if file.is_file())


def drop_optimizer(run: Path) -> None:
    """Removes the optimizer's states of a finished run, which then can't go on; weights and averages stay."""
    for checkpoint in list_checkpoints(run):
        checksums = checkpoint / CHECKSUMS
        if checksums.is_file():
            lines = checksums.read_text(encoding="utf-8").splitlines(keepends=True)
            commit_text(checksums, "".join(line for line in lines if not is_optimizers(line[130:].rstrip("\n"))))
        (checkpoint / OPTIMIZER).unlink(missing_ok=True)
        shutil.rmtree(checkpoint / SHARDS, ignore_errors=True)


def remove_run(run: Path) -> None:
    """Removes a run's folder. A kill leaves it whole, or under a temporary name that the next removal takes.

    Raises:
        UserError: it is no run, or holds files that are no part of one.
    """
    if own_folder_kind(run) != "run" or run.is_symlink():
        raise UserError(f"{run} is no training run; nothing was removed.")
    if foreign := foreign_files(run):
        raise UserError(f"{run} holds {foreign[0].name}, which is no part of a run; move it away first.")
    aside = run.with_name(temporary_name())
    os.rename(run, aside)
    shutil.rmtree(aside)


def _entries(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())
