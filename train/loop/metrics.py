"""A run's log: one line a step in log.jsonl, and the same on its boards, with how fast it goes."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from dreamloom.train.loop.loggers import Board
from dreamloom.train.loop.loss_window import StepRecord
from dreamloom.train.model.device import peak_memory


class Log:
    """Writes what the steps gave, and measures the speed of the loop and its waiting for data.

    Args:
        run: the run's folder; None: nothing is written, as another process does.
        boards: who shows it.
    """

    def __init__(self, run: Path | None, boards: Sequence[Board], device: torch.device) -> None:
        self.boards = boards
        self.device = device
        self.lines = (run / "log.jsonl").open("a", encoding="utf-8") if run else None
        self.images = 0
        self.seconds = 0.0
        self.waited = 0.0
        self.loss: float | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, the loop waits for data."""
        began = time.perf_counter()
        yield
        self.waited += time.perf_counter() - began

    @contextmanager
    def working(self) -> Iterator[None]:
        """Within, the loop trains, or waits for data."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    def write(self, records: list[StepRecord]) -> None:
        """Adds the steps since the last look."""
        if not records or self.lines is None:
            return
        for record in records:
            self.lines.write(json.dumps(asdict(record)) + "\n")
            self._show(record.step, {f"train/{name}": getattr(record, name) for name in ("loss", "gradient", "rate")})
        self.lines.flush()
        self.loss = sum(record.loss for record in records) / len(records)
        speed = {"images_per_second": self.rate or 0.0, "data_wait": self.wait_share}
        speed["peak_memory_gb"] = peak_memory(self.device) / 1e9
        self._show(records[-1].step, {f"speed/{name}": value for name, value in speed.items()})

    def drawn(self, step: int, path: Path) -> None:
        """Adds samples."""
        for board in self.boards:
            board.picture(step, "samples", path)

    def measured(self, step: int, name: str, value: float | None) -> None:
        """Adds a measurement: learned or forgotten."""
        if value is not None:
            self._show(step, {f"evaluation/{name}": value})

    @property
    def rate(self) -> float | None:
        """Pictures a second since the log was opened."""
        return self.images / self.seconds if self.seconds else None

    @property
    def wait_share(self) -> float:
        """Share of the loop's time in which it waited for data."""
        return self.waited / self.seconds if self.seconds else 0.0

    @property
    def note(self) -> str:
        """How it goes, in a few words."""
        loss = "" if self.loss is None else f"loss {self.loss:.4f}, "
        return f"{loss}{self.rate or 0:.1f} images/s, {self.wait_share:.1%} of the time waiting for data"

    def close(self) -> None:
        """Closes the files."""
        if self.lines is not None:
            self.lines.close()
        for board in self.boards:
            board.close()

    def _show(self, step: int, values: dict[str, float]) -> None:
        for board in self.boards:
            board.add(step, values)
