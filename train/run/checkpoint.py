"""Saves and loads checkpoints. A checkpoint is a folder that is either complete or not there.

<run>/checkpoints/<images seen>/weights.safetensors     trained parameters (dreamloom.train.model.trainable), by name
                                average.safetensors     their average, if one is kept
                                optimizer.pt            the optimizer's state
                                state.json              the images seen
"""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamloom.base.disk import explain_write_errors
from dreamloom.base.errors import UserError
from dreamloom.base.files import TEMPORARY, commit_folder, commit_json
from dreamloom.train.model.model import Model
from dreamloom.train.run.folder import best_checkpoint, list_checkpoints

_UNREADABLE = (SafetensorError, pickle.UnpicklingError, EOFError)
"""What readers of weights and of the optimizer's state raise for damaged files, beside OSError and the like."""


class Checkpointable(Protocol):
    """What a checkpoint is made of: dreamloom.train.loop.trainer.Trainer, or anything with the same state."""

    images_seen: int

    @property
    def device(self) -> torch.device:
        """Device of the optimizer's state."""

    def state_dict(self) -> dict[str, Any]:
        """Returns images_seen; weights and average (or None), as name → tensor; and the optimizer's state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over such a state. Without an average, the key is missing."""


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
        commit_json(folder / "state.json", {"images_seen": trainer.images_seen})
    for old in list_checkpoints(run)[:-total_limit]:
        if old == best_checkpoint(run):
            continue
        aside = old.with_name(f"{TEMPORARY}{os.getpid()}-{old.name}")
        os.rename(old, aside)  # half a checkpoint must never look like a whole one
        shutil.rmtree(aside, ignore_errors=True)
    return path


def load(path: Path, trainer: Checkpointable) -> None:
    """Restores a trainer to the state of a checkpoint.

    Raises:
        UserError: the checkpoint can't be read.
    """
    average = path / "average.safetensors"
    try:
        state = {
            "images_seen": json.loads((path / "state.json").read_text())["images_seen"],
            "weights": load_file(path / "weights.safetensors"),
            "optimizer": torch.load(path / "optimizer.pt", weights_only=True, map_location=trainer.device),
        }
        if average.exists():
            state["average"] = load_file(average)
        trainer.load_state_dict(state)
    except (OSError, ValueError, KeyError, RuntimeError, *_UNREADABLE) as error:
        raise UserError(
            f"The checkpoint {path} can't be read ({error}); remove it to resume from the one before, or from the "
            "start."
        ) from error


@torch.no_grad()
def load_weights(path: Path, model: Model, use_ema: bool) -> None:
    """Copies a checkpoint's weights into a model; the averaged ones if they are asked for and were kept."""
    average = path / "average.safetensors"
    stored = load_file(average if use_ema and average.exists() else path / "weights.safetensors")
    for part in ("unet", "text_encoder"):
        parameters = dict(getattr(model, part).named_parameters())
        for name, value in stored.items():
            if name.startswith(f"{part}."):
                parameters[name.removeprefix(f"{part}.")].copy_(value)


def _contiguous(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
