"""Saves and loads checkpoints. A checkpoint is a folder that is either complete or not there.

<run>/checkpoints/<images seen>/weights.safetensors     trained parameters (dreamloom.train.model.trainable), by name
                                average.safetensors     their average, if one is kept
                                optimizer.pt            the optimizer's state
                                optimizer/              of it, by shards (dreamloom.train.run.optimizer_shards)
                                state.json              the images seen, and the gradient scaler's state
                                checksums.b2            of these files (dreamloom.train.run.checksums)
"""

import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_folder, temporary_name
from dreamloom.base.files.disk import explain_write_errors
from dreamloom.base.versions import RUN
from dreamloom.train.model.model import Model
from dreamloom.train.run.checksums import (
    SHARDS,
    DamagedCheckpointError,
    check_files,
    read_images_seen,
    write_checksums,
)
from dreamloom.train.run.folder import best_checkpoint, list_checkpoints

_log = logging.getLogger(__name__)

_UNREADABLE = (SafetensorError, pickle.UnpicklingError, EOFError, ValueError, KeyError, RuntimeError, FileNotFoundError)
"""What readers of weights and of the optimizer's state raise for damaged files."""


class Checkpointable(Protocol):
    """What a checkpoint is made of: dreamloom.train.loop.trainer.Trainer, or anything with the same state."""

    images_seen: int

    @property
    def device(self) -> torch.device:
        """Device of the optimizer's state."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the state.

        images_seen; weights and average (or None), as name → tensor; the state of the optimizer, and of the gradient
        scaler, if there is one, as numbers. write_shards, where processes share the optimizer's state: writes it into a
        folder, and is called in all of them.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over such a state. Without an average, the key is missing; shards is the folder of what was shared."""


def save(run: Path, trainer: Checkpointable, total_limit: int) -> Path:
    """Writes a checkpoint, then removes all but the newest `total_limit` and the best measured one.

    Raises:
        UserError: it can't be written; the older checkpoints are still there.
    """
    state = trainer.state_dict()
    path = run / "checkpoints" / str(trainer.images_seen)
    remedy = "make room and run again: the last checkpoint is still there"
    with explain_write_errors(path, remedy), commit_folder(path) as folder:
        save_file(_contiguous(state["weights"]), folder / "weights.safetensors")
        if state["average"] is not None:
            save_file(_contiguous(state["average"]), folder / "average.safetensors")
        torch.save(state["optimizer"], folder / "optimizer.pt")
        if write_shards := state.get("write_shards"):
            write_shards(folder / SHARDS)
        RUN.write_json(folder / "state.json", {"images_seen": trainer.images_seen, "scaler": state.get("scaler", {})})
        write_checksums(folder)
    for old in list_checkpoints(run)[:-total_limit]:
        if old == best_checkpoint(run):
            continue
        aside = old.with_name(temporary_name())
        os.rename(old, aside)  # half a checkpoint must never look like a whole one
        shutil.rmtree(aside, ignore_errors=True)
    return path


def help_save(trainer: Checkpointable) -> None:
    """Takes part in `save`, which the main process calls, where processes share the trainer's state."""
    trainer.state_dict()["write_shards"](None)


def resume(run: Path, trainer: Checkpointable) -> None:
    """Restores a trainer to the state of a run's newest checkpoint, if there is one.

    One that is damaged is set aside, with a warning, and the one before is taken.

    Raises:
        UserError: the only one is damaged, or one can't be read.
    """
    checkpoints = list_checkpoints(run)
    while checkpoints:
        newest = checkpoints.pop()
        try:
            load(newest, trainer)
            return
        except DamagedCheckpointError as error:
            if not checkpoints:
                raise UserError(
                    f"The checkpoint {newest} is damaged: {error.damage}; there is none before it, so restore a copy, "
                    "or move it away to train from the start."
                ) from error
            aside = _set_aside(newest)
            _log.warning(
                "The checkpoint %s is damaged: %s. It is now %s, and training goes on from the one before, %s.",
                *(newest, error.damage, aside, checkpoints[-1]),
            )


def load(path: Path, trainer: Checkpointable) -> None:
    """Restores a trainer to the state of a checkpoint.

    Raises:
        DamagedCheckpointError: a file of the checkpoint is not as it was saved.
        UserError: a file can't be read.
    """
    average = path / "average.safetensors"
    try:
        check_files(path)
        state = {
            "images_seen": read_images_seen(path),
            "scaler": RUN.read_json(path / "state.json").get("scaler", {}),
            "weights": load_file(path / "weights.safetensors"),
            "optimizer": torch.load(path / "optimizer.pt", weights_only=True, map_location=trainer.device),
        }
        if average.exists():
            state["average"] = load_file(average)
        if (path / SHARDS).is_dir():
            state["shards"] = path / SHARDS
        trainer.load_state_dict(state)
    except torch.OutOfMemoryError:  # a RuntimeError
        raise
    except _UNREADABLE as error:
        raise DamagedCheckpointError(path, f"it can't be read ({error})") from error
    except OSError as error:
        raise UserError(f"The checkpoint {path} can't be read ({error}); mend that, and run again.") from error


@torch.no_grad()
def load_weights(path: Path, model: Model, use_ema: bool) -> None:
    """Copies a checkpoint's weights into a model; the averaged ones if they are asked for and were kept.

    Raises:
        DamagedCheckpointError: they are not as they were saved.
    """
    check_files(path, weights_only=True)
    average = path / "average.safetensors"
    file = average if use_ema and average.exists() else path / "weights.safetensors"
    try:
        stored = load_file(file)
    except (SafetensorError, FileNotFoundError) as error:
        raise DamagedCheckpointError(path, f"{file.name} can't be read ({error})") from error
    for part, module in model.components.items():
        parameters = dict(module.named_parameters())
        for name, value in stored.items():
            if name.startswith(f"{part}."):
                parameters[name.removeprefix(f"{part}.")].copy_(value)


def _set_aside(damaged: Path) -> Path:
    """Renames a checkpoint, so that it counts as one no more, and nothing is lost."""
    taken = [path.name for path in damaged.parent.glob(f"damaged-{damaged.name}*")]
    aside = damaged.with_name(f"damaged-{damaged.name}" + (f"-{len(taken) + 1}" if taken else ""))
    os.rename(damaged, aside)
    return aside


def _contiguous(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
