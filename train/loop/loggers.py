"""Where a run's curves and samples are shown: TensorBoard always, Weights & Biases where it is asked for."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig


class Board(Protocol):
    """One of them."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each of some curves."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """Adds an image."""

    def close(self) -> None:
        """Writes what is left."""


def open_boards(run: Path, step: int, config: TrainConfig) -> list[Board]:
    """The boards of a run that has done so many steps.

    Raises:
        UserError: Weights & Biases is asked for and not installed.
    """
    boards: list[Board] = [TensorBoard(run, step)]
    if config.wandb_project is not None:
        boards.append(WeightsAndBiases(run, config.wandb_project, config))
    return boards


class TensorBoard:
    """Files in <run>/logs."""

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer: Any = SummaryWriter(str(run / "logs"), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each of some curves."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Adds an image."""
        with Image.open(path) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is left."""
        self.writer.close()


class WeightsAndBiases:
    """A run of a Weights & Biases project; its name there is that of the folder.

    With WANDB_MODE=offline it is kept in <run>/logs/wandb, for `wandb sync`.
    """

    def __init__(self, run: Path, project: str, config: TrainConfig) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError("wandb is not installed: install dreamloom[wandb], or leave wandb_project out.") from None
        (run / "logs").mkdir(parents=True, exist_ok=True)
        try:
            self.run = wandb.init(
                project=project,
                id=hashlib.sha256(str(run.absolute()).encode()).hexdigest()[:16],  # a run that goes on stays one
                name=run.name,
                dir=str(run / "logs"),
                resume="allow",
                config=config.model_dump(mode="json"),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.errors.Error as error:
            raise UserError(f"Weights & Biases refuses ({error}); log in, or set WANDB_MODE=offline.") from error
        self.image = wandb.Image
        # its own counter must not fall, and does when a killed run goes on from its checkpoint
        self.run.define_metric("*", step_metric="step")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each of some curves."""
        self.run.log({**values, "step": step})

    def picture(self, step: int, name: str, path: Path) -> None:
        """Adds an image."""
        self.run.log({name: self.image(str(path)), "step": step})

    def close(self) -> None:
        """Writes what is left."""
        self.run.finish()
