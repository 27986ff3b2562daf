"""dreamloom train, as a scheduler sees it: SIGTERM saves, exits with 143, and says how to go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamloom.flows.commands.cli import run as dreamloom

pytestmark = pytest.mark.slow

HOUSE = Path(__file__).parents[2]
MODEL = HOUSE / "demo" / "models" / "stable-diffusion"


def test_sigterm_saves_and_the_next_call_goes_on(tmp_path: Path) -> None:
    folder, run = tmp_path / "pictures" / "own", tmp_path / "run"
    folder.mkdir(parents=True)
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 64)).save(folder / f"a thing_{number}.png")
    command = [
        sys.executable,
        "-m",
        "dreamloom.flows.commands.cli",
        "train",
        str(folder.parent),
        str(run),
        "--base",
        str(MODEL),
    ]
    command += ["--resolution", "64", "--batch-size", "2", "--sample-steps", "1", "--device", "cpu"]
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
    assert started.returncode == 128 + signal.SIGTERM
    assert "stopped and saved" in said and "run again to go on" in said
    (saved,) = (run / "checkpoints").glob("[0-9]*")
    assert int(saved.name) > 0


def test_the_plan_says_which_captions_will_be_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, caption in (("short", "a thing"), ("long", "a thing " * 60)):
        Image.new("RGB", (64, 64), "teal").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption)
    given = ["train", str(tmp_path), str(tmp_path / "run"), "--plan", "--base", str(MODEL), "--resolution", "64"]
    assert dreamloom(given) == 0
    assert "1 of 2 captions will be cut" in (said := capsys.readouterr().out) and "of long.png" in said
