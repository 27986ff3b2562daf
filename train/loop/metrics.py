"""Logs a run: one line per step in log.jsonl, and the same in its loggers, with the speed of the loop."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from dreamloom.train.loop.loggers import Logger
from dreamloom.train.loop.loss_window import StepRecord
from dreamloom.train.model.device import peak_memory


class MetricsLog:
    """Logs steps, evaluations and samples, and measures the loop's speed and how long it waits for data.

    Args:
        run: the run's folder; None: write nothing, because another process does.
        loggers: where curves and samples are shown.
        device: whose memory is measured.
    """

    def __init__(self, run: Path | None, loggers: Sequence[Logger], device: torch.device) -> None:
        self.loggers = loggers
        self.device = device
        self.lines = (run / "log.jsonl").open("a", encoding="utf-8") if run else None
        self.images = 0
        self.train_seconds = 0.0
        self.wait_seconds = 0.0
        self.loss: float | None = None

    @contextmanager
    def time_waiting(self) -> Iterator[None]:
        """Counts the time of the block as waiting for data."""
        start = time.perf_counter()
        yield
        self.wait_seconds += time.perf_counter() - start

    @contextmanager
    def time_training(self) -> Iterator[None]:
        """Counts the time of the block as training, including the wait for data."""
        start = time.perf_counter()
        yield
        self.train_seconds += time.perf_counter() - start

    def log_steps(self, records: list[StepRecord]) -> None:
        """Logs the steps since the last call, and the speed."""
        if not records or self.lines is None:
            return
        for record in records:
            self.lines.write(json.dumps(asdict(record)) + "\n")
            values = {f"train/{name}": getattr(record, name) for name in ("loss", "gradient", "rate")}
            self._log_scalars(record.step, {name: value for name, value in values.items() if value is not None})
        self.lines.flush()
        self.loss = sum(record.loss for record in records) / len(records)
        speed = {"images_per_second": self.images_per_second or 0.0, "data_wait": self.data_wait}
        speed["peak_memory_gb"] = peak_memory(self.device) / 1e9
        self._log_scalars(records[-1].step, {f"speed/{name}": value for name, value in speed.items()})

    def log_samples(self, step: int, path: Path) -> None:
        """Logs an image of samples."""
        for logger in self.loggers:
            logger.log_image(step, "samples", path)

    def log_evaluation(self, step: int, name: str, value: float | None) -> None:
        """Logs a measurement: learned or forgotten."""
        if value is not None:
            self._log_scalars(step, {f"evaluation/{name}": value})

    @property
    def images_per_second(self) -> float | None:
        """Speed since the log was opened; None before the first step."""
        return self.images / self.train_seconds if self.train_seconds else None

    @property
    def data_wait(self) -> float:
        """Share of the loop's time spent waiting for data."""
        return self.wait_seconds / self.train_seconds if self.train_seconds else 0.0

    @property
    def note(self) -> str:
        """Loss and speed, in a few words."""
        loss = "" if self.loss is None else f"loss {self.loss:.4f}, "
        return f"{loss}{self.images_per_second or 0:.1f} images/s, {self.data_wait:.1%} of the time waiting for data"

    def close(self) -> None:
        """Closes the files and the loggers."""
        if self.lines is not None:
            self.lines.close()
        for logger in self.loggers:
            logger.close()

    def _log_scalars(self, step: int, values: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_scalars(step, values)
