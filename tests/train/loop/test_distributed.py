"""Several processes train as one: the same losses and weights, whoever does which share."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.schedule import Batch
from dreamloom.train.loop.distributed import DistributedGroup, check_batch_size
from dreamloom.train.loop.loop import train
from dreamloom.train.run.folder import list_checkpoints, read_summary

pytestmark = pytest.mark.slow

Config = Callable[..., TrainConfig]
HOUSE = Path(__file__).parents[3]

SHARED: dict[str, Any] = {
    "batch_size": 4,
    "gradient_accumulation_steps": 2,
    "epochs": 3,
    "ema_half_life_images": 8,
    "caption_dropout_rate": 0.3,
    "noise_offset": 0.1,
    "learning_rate": 1e-4,
}

TRAINER = """
import os, socket, sys
from pathlib import Path
from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.loop import train
# what takes long to import is imported here, once for all children
from dreamloom.train.loop import session, distributed, grad_scaler
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

grad_scaler.INITIAL_SCALE = 2.0**21  # so high that float16 skips a step
folder, place, heldout, config = sys.argv[1:]

def start(run, environment):
    child = os.fork()
    if child == 0:
        os.environ |= environment
        own_cache = {"latent_cache": Path(place) / f"{run} cache"}  # one process fills a cache at a time
        settings = TrainConfig.model_validate_json(config).model_copy(update=own_cache)
        train(Path(folder), Path(place) / run, settings, Path(heldout))
        os._exit(0)
    return child

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
alone = start("single", {})
both = [start("pair", {**meeting, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in (alone, *both)])
"""


AUTO = {"auto_ratio": True, "ground_truth": ["ground"], "limit_mean": 0.1, "evaluate_every_n_steps": 1}


@pytest.mark.parametrize(
    ("family", "precision", "apart", "changes"),
    [("sdxl", "fp32", 2e-5, AUTO), ("sd", "fp16", 5e-4, {}), ("sd3", "fp32", 2e-5, {})],
)
def test_two_processes_with_half_the_batch_each_equal_one(
    family: str,
    bases: Callable[[str], str],
    folder: Path,
    heldout: Path,
    tmp_path: Path,
    config: Config,
    precision: str,
    apart: float,
    changes: dict[str, Any],
) -> None:
    """They also decide alike what ground truth to show, by the main one's evaluations."""
    settings = config(base=bases(family), precision=precision, **SHARED, **changes)
    arguments = [str(folder), str(tmp_path), str(heldout), settings.model_dump_json(exclude_unset=True)]
    process = subprocess.run([sys.executable, "-c", TRAINER, *arguments], capture_output=True, text=True, cwd=HOUSE)
    assert process.stdout.split("\n")[0] == "[0, 0, 0]", process.stderr
    single, pair = (list_checkpoints(tmp_path / name)[-1] for name in ("single", "pair"))
    for file in ("weights.safetensors", "average.safetensors"):
        ours, theirs = load_file(single / file), load_file(pair / file)
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert torch.allclose(theirs[name], value, atol=apart), name
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("single", "pair")]
    assert len(logs[0]) == len(logs[1]) > 2
    lines = [[json.loads(line) for line in log] for log in logs]
    skipped = [[line.pop("gradient") is None for line in log] for log in lines]
    assert skipped[0] == skipped[1] and any(skipped[0]) == (precision == "fp16") and not skipped[0][-1]
    for ours_line, theirs_line in zip(*lines, strict=True):
        assert theirs_line == pytest.approx(ours_line, rel=1e-3)
    states = [(checkpoint / "state.json").read_text() for checkpoint in (single, pair)]
    assert states[0] == states[1]
    learned = [summary.learned for name in ("single", "pair") if (summary := read_summary(tmp_path / name))]
    assert learned == pytest.approx([learned[0]] * 2, rel=1e-2)


def test_a_fused_step_is_for_one_process(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="fused_backward is for one process"):
        train(folder, tmp_path / "run", config(base=tiny_base, fused_backward=True, max_grad_norm=None))


JOINER = """
from dreamloom.train.loop.distributed import join_group

for number in range(3):
    with join_group("cpu") as distributed:
        line = f"{number} {distributed.any(distributed.rank == 1)}\\n"
        print(line, end="", flush=True)  # in one piece, as both processes write
"""


def test_a_process_of_torchrun_may_train_again(tmp_path: Path) -> None:
    """As a script with several runs does, or a project with several stages of training."""
    (tmp_path / "joiner.py").write_text(JOINER)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "joiner.py")]
    environment = {**os.environ, "PYTHONPATH": str(HOUSE), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, *launcher], capture_output=True, text=True, env=environment, timeout=90, check=False
    )
    assert sorted(process.stdout.split("\n"))[1:] == [f"{n} True" for n in (0, 0, 1, 1, 2, 2)], process.stderr


def test_shares_are_the_batch() -> None:
    whole = (Batch((64, 64), "", (5, 3, 8, 1), (20, 21, 22, 23)),)
    mixed = (Batch((64, 64), "", (7,), (24,)), Batch((32, 128), "", (2, 4, 6), (25, 26, 27)))
    shares = [DistributedGroup(rank, 2).shard((whole, mixed)) for rank in range(2)]
    assert [[batch.sample_ids for batch in share] for share in shares] == [[(5, 3), (7,), (2,)], [(8, 1), (4, 6)]]
    assert [[batch.indices for batch in share] for share in shares] == [
        [(20, 21), (24,), (25,)],
        [(22, 23), (26, 27)],
    ]


def test_a_process_without_images_in_the_last_step_takes_part_without_weight() -> None:
    shares = [DistributedGroup(rank, 2).shard(((Batch((64, 64), "", (5,), (20,)),),)) for rank in range(2)]
    assert [(batch.sample_ids, batch.padding) for share in shares for batch in share] == [((5,), 1), ((5,), 0)]


def test_a_batch_that_cannot_be_shared_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="3 processes"):
        check_batch_size(4)
