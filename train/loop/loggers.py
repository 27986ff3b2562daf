"""Loggers of a run's curves and samples: TensorBoard always, Weights & Biases if it is asked for."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig


class Logger(Protocol):
    """Shows the curves and samples of a run."""

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each of some curves."""

    def log_image(self, step: int, name: str, path: Path) -> None:
        """Adds an image."""

    def close(self) -> None:
        """Writes what is left."""


def open_loggers(run: Path, step: int, config: TrainConfig) -> list[Logger]:
    """Opens the loggers of a run that has done `step` optimizer steps.

    Raises:
        UserError: Weights & Biases is asked for, and is not installed or refuses.
    """
    loggers: list[Logger] = [TensorBoardLogger(run, step)]
    if config.wandb_project is not None:
        loggers.append(WandbLogger(run, config.wandb_project, config))
    return loggers


class TensorBoardLogger:
    """Writes TensorBoard's files to <run>/logs."""

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer: Any = SummaryWriter(str(run / "logs"), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each of some curves."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def log_image(self, step: int, name: str, path: Path) -> None:
        """Adds an image."""
        with Image.open(path) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is left."""
        self.writer.close()


class WandbLogger:
    """Logs to a run of a Weights & Biases project, named like the run's folder.

    With WANDB_MODE=offline the logs stay in <run>/logs/wandb, for `wandb sync`.

    Raises:
        UserError: wandb is not installed, or refuses.
    """

    def __init__(self, run: Path, project: str, config: TrainConfig) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError("wandb is not installed; pip install wandb, or leave wandb_project out.") from None
        (run / "logs").mkdir(parents=True, exist_ok=True)
        try:
            self.run = wandb.init(
                project=project,
                id=hashlib.sha256(str(run.absolute()).encode()).hexdigest()[:16],  # a resumed run keeps its ID
                name=run.name,
                dir=str(run / "logs"),
                resume="allow",
                config=config.model_dump(mode="json"),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.errors.Error as error:
            raise UserError(f"Weights & Biases refuses ({error}); log in, or set WANDB_MODE=offline.") from error
        self.image_class = wandb.Image
        # wandb's own step must not decrease, and would when a killed run resumes from its checkpoint
        self.run.define_metric("*", step_metric="step")

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each of some curves."""
        self.run.log({**values, "step": step})

    def log_image(self, step: int, name: str, path: Path) -> None:
        """Adds an image."""
        self.run.log({name: self.image_class(str(path)), "step": step})

    def close(self) -> None:
        """Writes what is left."""
        self.run.finish()
