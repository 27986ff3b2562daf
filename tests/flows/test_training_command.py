"""dreamloom train, as a scheduler sees it: SIGTERM saves, exits 0, and says how to go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HOUSE = Path(__file__).parents[2]
MODEL = HOUSE / "demo" / "models" / "stable-diffusion"


def test_sigterm_saves_and_the_next_call_goes_on(tmp_path: Path) -> None:
    folder, run = tmp_path / "pictures" / "own", tmp_path / "run"
    folder.mkdir(parents=True)
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 64)).save(folder / f"a thing_{number}.png")
    command = [sys.executable, "-m", "flows.cli", "train", str(folder.parent), str(run), "--base", str(MODEL)]
    command += ["--resolution", "64", "--batch", "2", "--sample-steps", "1", "--device", "cpu"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    started = subprocess.Popen(
        [*command, "--epochs", "100000"], cwd=HOUSE, env=environment, text=True, stdout=-1, stderr=-1
    )
    assert started.stderr is not None
    for line in started.stderr:
        if "images/s" in line:  # it trains
            started.send_signal(signal.SIGTERM)
            break
    said, _ = started.communicate(timeout=120)
    assert started.returncode == 0
    assert "stopped and saved" in said and "run again to go on" in said
    (saved,) = (run / "checkpoints").glob("[0-9]*")
    assert int(saved.name) > 0
