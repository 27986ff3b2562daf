"""A run's log: one line a step in log.jsonl, and the same for TensorBoard, with how fast it goes."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from train.losses import StepRecord


class Log:
    """Writes what the steps gave, and measures the speed of the loop and its waiting for data.

    Args:
        step: the optimizer steps that were done when the log is opened.
    """

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.board = SummaryWriter(str(run / "logs"), purge_step=step + 1)  # type: ignore[no-untyped-call]
        self.lines = (run / "log.jsonl").open("a", encoding="utf-8")
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
        for record in records:
            self.lines.write(json.dumps(asdict(record)) + "\n")
            for name in ("loss", "gradient", "rate"):
                self.board.add_scalar(f"train/{name}", getattr(record, name), record.step)  # type: ignore[no-untyped-call]
        self.lines.flush()
        if records:
            self.loss = sum(record.loss for record in records) / len(records)
            self.board.add_scalar("speed/images_per_second", self.rate or 0.0, records[-1].step)  # type: ignore[no-untyped-call]
            self.board.add_scalar("speed/data_wait", self.wait_share, records[-1].step)  # type: ignore[no-untyped-call]

    def measured(self, step: int, name: str, value: float | None) -> None:
        """Adds a measurement: learned or forgotten."""
        if value is not None:
            self.board.add_scalar(f"evaluation/{name}", value, step)  # type: ignore[no-untyped-call]

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
        self.lines.close()
        self.board.close()  # type: ignore[no-untyped-call]
