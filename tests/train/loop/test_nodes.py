"""Several machines train as one: here each is a number of processes that are told that they are one."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.peers import SILENCE_S, SignsOfLife
from dreamloom.train.run.folder import list_checkpoints

HOUSE = Path(__file__).parents[3]

LAUNCHER = """
import json, os, signal, socket, sys
from pathlib import Path
from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.loop import train
# what takes long to import is imported here, once for all children
from dreamloom.train.loop import session, distributed, peers
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

distributed.APPEARANCE_S = 0.5
place, groups = Path(sys.argv[1]), json.loads(sys.argv[2])

def child(rank, group):
    sys.stdout = sys.stderr = open(place / f"{group['name']} {rank}.txt", "w")
    pid = place / f"{group['name']} {rank}.pid"
    pid.write_text(str(os.getpid()))
    victim, at = group.get("kill", (None, 0))
    def progress(done, total, note=""):
        if "images/s" in note and done >= at and victim is not None:
            os.kill(int((place / f"{group['name']} {victim}.pid").read_text()), signal.SIGKILL)
    opened = []
    def watch(event, arguments):
        if event == "open" and str(arguments[0]).endswith(".png") and "folder" in str(arguments[0]):
            opened.append(str(arguments[0]))
    sys.addaudithook(watch)
    changed = group.get("instead", {}).get(str(rank), {})
    settings = {**group["config"], "latent_cache": str(place / f"{group['name']} cache")}
    os.environ["DREAMLOOM_CACHE"] = str(place / f"{group['name']} files")
    try:
        train(Path(changed.get("folder", group["folder"])), place / changed.get("run", group["run"]),
              TrainConfig.model_validate(settings), group.get("heldout"), progress)
        code = 0
    except UserError as error:
        print(f"{type(error).__name__}: {error}")
        code = 2
    except SystemExit as error:
        code = error.code
    (place / f"{group['name']} {rank}.json").write_text(json.dumps(opened))
    sys.stdout.flush()
    os._exit(code)

def start(group):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    machines, each = group["machines"], group["each"]
    children = []
    for rank in range(machines * each):
        pid = os.fork()
        if not pid:
            if machines * each > 1:
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank),
                    "WORLD_SIZE": str(machines * each), "LOCAL_RANK": str(rank % each), "LOCAL_WORLD_SIZE": str(each)}
            child(rank, group)
        children.append(pid)
    return children

codes = {}
for group in groups:
    codes[group["name"]] = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in start(group)]
print(json.dumps(codes))
"""


def launch(place: Path, groups: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Runs groups of processes one after the other; returns the exit codes of their processes."""
    arguments = [str(place), json.dumps(groups)]
    process = subprocess.run([sys.executable, "-c", LAUNCHER, *arguments], capture_output=True, text=True, cwd=HOUSE)
    said = {path.name: path.read_text()[-1500:] for path in place.glob("*.txt")}
    assert process.returncode == 0, f"{process.stderr} {said}"
    return dict(json.loads(process.stdout))


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest = list_checkpoints(run)[-1]
    files = ("weights.safetensors", "average.safetensors")
    return {f"{file} {name}": value for file in files for name, value in load_file(newest / file).items()}


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], apart: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.allclose(theirs[name], value, rtol=0, atol=apart), name


@pytest.mark.slow
def test_machines_train_as_one_process_and_go_on_after_one_died(
    tiny_base: str, folder: Path, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    settings = config(
        base=tiny_base, batch_size=4, epochs=3, ema_half_life_images=8, learning_rate=1e-4, checkpoint_every_n_steps=2
    )
    common = {"config": settings.model_dump(mode="json", exclude_unset=True), "folder": str(folder)}
    two = {"machines": 2, "each": 1}
    groups: list[dict[str, Any]] = [
        {"name": "1 x 4", "machines": 1, "each": 4},
        {"name": "2 x 2", "machines": 2, "each": 2, "kill": [3, 12]},
        {"name": "blind", **two, "instead": {"1": {"run": "elsewhere"}}},
        {"name": "lost", **two, "instead": {"1": {"folder": "nowhere"}}},
    ]
    codes = launch(tmp_path, [{"run": group["name"], **common, **group} for group in groups])
    assert codes["1 x 4"] == [0] * 4
    for name, theirs in (("blind", "elsewhere"), ("lost", "nowhere")):
        said = [(tmp_path / f"{name} {rank}.txt").read_text() for rank in range(2)]
        assert codes[name] == [2, 2] and theirs in said[1] and said[1].count("UserError") == 1
        assert said[0] == ""  # on another machine it would say what the second one did
    assert codes["2 x 2"] == [2, 2, 2, -9]
    survivors = "".join((tmp_path / f"2 x 2 {rank}.txt").read_text() for rank in range(3))
    assert "goes on from the last checkpoint" in survivors
    assert 8 <= int(list_checkpoints(tmp_path / "2 x 2")[-1].name) <= 16
    opened = [json.loads((tmp_path / f"2 x 2 {rank}.json").read_text()) for rank in range(3)]
    assert opened[0] and not opened[1], "one process of a machine reads for all"

    goes_on = {**common, "run": "2 x 2", "name": "again", "machines": 2, "each": 2}
    assert launch(tmp_path, [goes_on]) == {"again": [0] * 4}
    assert_close(weights(tmp_path / "2 x 2"), weights(tmp_path / "1 x 4"), 0)


def test_a_process_that_is_silent_is_told_and_sleep_is_no_silence() -> None:
    life, beats, now = SignsOfLife(0, 0.0), [b"0", b"0"], 0.0
    assert life.silent(beats, now) == []
    for number in range(40):  # rank 1 says nothing for 80 s, rank 0 is this process
        now += 2
        silent = life.silent([b"0", b"0"], now)
        assert silent == ([1] if now > SILENCE_S else []), number
    assert life.silent([b"0", b"1"], now + 2) == []
    assert life.silent([b"0", b"1"], now + 3600) == []  # as this process was asleep, too
    for number in range(1, 40):
        silent = life.silent([b"0", b"1"], now + 3600 + 2 * number)
    assert silent == [1]


def test_a_store_that_does_not_answer_is_the_main_process_silence() -> None:
    life = SignsOfLife(1, 0.0)
    assert [life.silent(None, 2.0 * number) for number in range(31)] == [[]] * 31
    assert life.silent(None, 64.0) == [0]
