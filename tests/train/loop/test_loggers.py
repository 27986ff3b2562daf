"""Boards: TensorBoard has the curves of a run and its samples; Weights & Biases keeps the same offline."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.loop import train

HOUSE = Path(__file__).parents[3]


def test_tensorboard_has_the_curves_and_the_samples(
    tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    train(folder, tmp_path / "run", config(base=tiny_base, max_train_steps=2), heldout)
    events = EventAccumulator(str(tmp_path / "run" / "logs"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        *(f"train/{name}" for name in ("loss", "gradient", "rate")),
        *(f"speed/{name}" for name in ("images_per_second", "data_wait", "peak_memory_gb")),
        *(f"evaluation/{name}" for name in ("learned", "forgotten")),
    }
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    assert events.Scalars("speed/peak_memory_gb")[-1].value > 0.05
    assert events.Tags()["images"] == ["samples"]


@pytest.mark.slow
def test_weights_and_biases_keeps_a_run_offline(tmp_path: Path) -> None:
    """In a process of its own, as wandb starts a service that outlives the run."""
    pytest.importorskip("wandb")
    code = (
        "import sys; from pathlib import Path\n"
        "from dreamloom.train.loop.loggers import WandbLogger; from dreamloom.train.config import TrainConfig\n"
        "logger = WandbLogger(Path(sys.argv[1]), 'my-project', TrainConfig())\n"
        "logger.log_scalars(1, {'train/loss': 0.5}); logger.log_scalars(2, {'train/loss': 0.25}); logger.close()"
    )
    environment = {"WANDB_MODE": "offline", "PYTHONPATH": str(HOUSE), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    run = tmp_path / "run"
    process = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    assert not process.stdout, "the terminal is the progress bar's"
    (log,) = (run / "logs" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"train/loss" in log.read_bytes()
