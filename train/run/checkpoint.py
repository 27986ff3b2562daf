"""Checkpoints: a trainer's whole state, in a folder that is either there and whole, or not there.

<run>/checkpoints/<images seen>/weights.safetensors     what learns (dreamloom.train.model.trainable), by name
                                average.safetensors     their average, where one is kept
                                optimizer.pt            the optimizer's state
                                state.json              the images seen
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamloom.base.disk import explain_write_errors
from dreamloom.base.errors import UserError
from dreamloom.base.files import TEMPORARY, commit_folder, commit_json
from dreamloom.train.loop.trainer import Trainer
from dreamloom.train.model.model import Model
from dreamloom.train.run.folder import best_checkpoint, checkpoints


def save(run: Path, trainer: Trainer, keep: int) -> Path:
    """Writes a checkpoint, then removes all but the `keep` newest and the best of those that were measured.

    Raises:
        UserError: it can't be written; the older ones are still there.
    """
    state = trainer.state_dict()
    path = run / "checkpoints" / str(trainer.images_seen)
    with (
        explain_write_errors(path, "make room and run again: the last checkpoint is still there"),
        commit_folder(path) as folder,
    ):
        save_file(_plain(state["weights"]), folder / "weights.safetensors")
        if state["average"] is not None:
            save_file(_plain(state["average"]), folder / "average.safetensors")
        torch.save(state["optimizer"], folder / "optimizer.pt")
        commit_json(folder / "state.json", {"images_seen": trainer.images_seen})
    for old in checkpoints(run)[:-keep]:
        if old == best_checkpoint(run):
            continue
        aside = old.with_name(f"{TEMPORARY}{os.getpid()}-{old.name}")
        os.rename(old, aside)  # half a checkpoint must never look like a whole one
        shutil.rmtree(aside, ignore_errors=True)
    return path


def load(path: Path, trainer: Trainer) -> None:
    """Puts a trainer where it was when the checkpoint was written.

    Raises:
        UserError: the checkpoint can't be read.
    """
    try:
        trainer.load_state_dict(
            {
                "images_seen": json.loads((path / "state.json").read_text())["images_seen"],
                "weights": load_file(path / "weights.safetensors"),
                "average": load_file(path / "average.safetensors") if trainer.average is not None else None,
                "optimizer": torch.load(path / "optimizer.pt", weights_only=True, map_location=trainer.model.device),
            }
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"The checkpoint {path} can't be read ({error}); remove it to go on from the one before, or from the start."
        ) from error


@torch.no_grad()
def apply_weights(path: Path, model: Model, average: bool) -> None:
    """Gives a model the weights of a checkpoint; the average, where it is asked for and was kept."""
    averaged = path / "average.safetensors"
    stored = load_file(averaged if average and averaged.exists() else path / "weights.safetensors")
    for part in ("unet", "text_encoder"):
        own = dict(getattr(model, part).named_parameters())
        for name, value in stored.items():
            if name.startswith(f"{part}."):
                own[name.removeprefix(f"{part}.")].copy_(value)


def _plain(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
