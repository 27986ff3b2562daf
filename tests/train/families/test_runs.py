"""A run of any family ends with the same bits after a stop, is measured, exported, and measured again as it was."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dreamloom.train.audit.audit import audit
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.config import DreamBoothConfig, TrainConfig
from dreamloom.train.dreambooth import dreambooth
from dreamloom.train.evaluate.config import as_trained
from dreamloom.train.evaluate.evaluate import evaluate
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export
from dreamloom.train.loop.loop import train
from dreamloom.train.plan import plan
from dreamloom.train.run.folder import list_checkpoints
from tests.conftest import HOUSE
from tests.train.conftest import paint
from tests.train.tiny_families import FAMILIES

Config = Callable[..., TrainConfig]
OTHERS = [family for family in FAMILIES if family != "sd"]  # the tests of the loop itself have that


@pytest.mark.slow
@pytest.mark.parametrize("family", OTHERS)
def test_a_run_of_each_family(
    family: str, bases: Callable[[str], str], folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    base = bases(family)
    settings = config(
        base=base, crop_jitter=0.2, flip_p=0.5, max_train_steps=4, text_encoder_2_learning_rate=0.0, held_out=0.0
    )
    assert plan(folder, settings, heldout=heldout).steps == 4
    whole = train(folder, tmp_path / "whole", settings, heldout=heldout)
    assert whole.finished and whole.learned is not None and whole.forgotten is not None

    def stop(done: int, total: int | None, note: str = "") -> None:
        if "images/s" in note and done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    assert not train(folder, tmp_path / "stopped", settings, heldout=heldout, progress=stop).finished
    assert train(folder, tmp_path / "stopped", settings, heldout=heldout).finished
    ends = [load_file(list_checkpoints(tmp_path / run)[-1] / "weights.safetensors") for run in ("whole", "stopped")]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert list((tmp_path / "whole" / "samples").glob("*.png"))
    exported = export(tmp_path / "whole", tmp_path / "model", ExportConfig(dtype="fp32"))
    assert exported.single_file and not exported.note
    found = evaluate(tmp_path / "model", base, heldout, as_trained(settings))
    assert found.learned is not None and found.learned.change == pytest.approx(whole.learned, abs=1e-5)


KILLER = """
import json, os, signal, sys
from pathlib import Path
from dreamloom.train.audit.audit import audit
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.loop import train
from dreamloom.train.loop import session  # what takes long to import is imported here, once for all children
import matplotlib.backends.backend_agg, matplotlib.figure, torch.utils.tensorboard
from diffusers import AutoencoderKL, StableDiffusion3Pipeline, StableDiffusionXLPipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

def die_before_checkpoint(left):
    def count(event, arguments):
        nonlocal left
        if event == "os.rename":
            target = Path(os.fsdecode(arguments[1]))
            left -= target.parent.name == "checkpoints" and target.name.isdigit()
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)

folder, root, configs = sys.argv[1:]
for family, config in json.loads(configs).items():
    for name, at in (("whole", 99), ("killed", 1), ("killed", 2), ("killed", 99)):
        child = os.fork()
        if child == 0:
            die_before_checkpoint(at)
            train(Path(folder), Path(root, family, name), TrainConfig(**config))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_killed_before_a_checkpoint_each_family_goes_on_to_the_same_bits(
    bases: Callable[[str], str], folder: Path, tmp_path: Path, config: Config
) -> None:
    """One process for all of them: what it imports takes longer than the runs."""
    families = ("sdxl", "sd3")
    short = {"max_train_steps": 3, "checkpoint_every_n_steps": 1, "crop_jitter": 0.2, "sample_prompts": []}
    configs = {
        family: config(base=bases(family), **short).model_dump(mode="json", exclude_unset=True) for family in families
    }
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(folder), str(tmp_path), json.dumps(configs)],
        stdout=subprocess.PIPE, text=True, cwd=HOUSE, timeout=600,
    )  # fmt: skip
    assert [int(line) for line in done.stdout.split()] == [0, -9, -9, 0] * len(families)
    for family in families:
        whole, killed = (list_checkpoints(tmp_path / family / run)[-1] for run in ("whole", "killed"))
        assert whole.name == killed.name
        assert (whole / "weights.safetensors").read_bytes() == (killed / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("family", OTHERS)
def test_each_family_draws_class_images(family: str, bases: Callable[[str], str], tmp_path: Path) -> None:
    paint(tmp_path / "subjects" / "ted" / "x.png", (40, 40), 0)
    for name, prompt in (("instance", "a sks ted"), ("class", "a bear")):
        (tmp_path / "subjects" / "ted" / f"{name}.txt").write_text(prompt)
    settings: dict[str, Any] = {"resolution": 32, "num_class_images": 1, "sample_steps": 1, "device": "cpu"}
    done = dreambooth(tmp_path / "subjects", tmp_path / "set", DreamBoothConfig(base=bases(family), **settings))
    assert (done.images, done.drawn) == (1, 1)


@pytest.mark.parametrize("family", OTHERS)
def test_each_family_is_audited(family: str, bases: Callable[[str], str], tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        paint(tmp_path / "images" / name / "x.png", (32, 32), number)
    (tmp_path / "vocabulary.txt").write_text("a cat\na dog")
    settings: dict[str, Any] = {"resolution": 32, "bucket_reso_steps": 8, "device": "cpu", "num_workers": 1}
    settings |= {
        "drift_latents": 1,
        "drift_sample_steps": 1,
        "class_timesteps": 1,
        "num_pictures": 1,
        "sample_steps": 1,
    }
    config = AuditConfig(vocabulary=tmp_path / "vocabulary.txt", **settings)
    found = audit(bases(family), bases(family), tmp_path / "audit", config, tmp_path / "images")
    assert [each.drift for each in found.drift] == [0.0, 0.0] and len(found.classes) == 2
    assert all(each.change == each.margin_change == 0 for each in found.classes)
