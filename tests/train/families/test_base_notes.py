"""Bases that are trained, and of which something is said: stored in 8 bits without scales, as ComfyUI has them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamloom.base.errors import UserError
from dreamloom.train.families.base_notes import base_notes
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.registry import FAMILIES
from tests.train.conftest import CPU


@pytest.mark.parametrize(("name", "dtype"), [("sd", "e4m3fn"), ("sdxl", "e5m2"), ("sd3", "e4m3fn")])
def test_values_of_8_bits_are_taken_as_they_are_and_told(
    name: str, dtype: str, bases: Callable[[str], str], tmp_path: Path
) -> None:
    stored, denoiser = getattr(torch, f"float8_{dtype}"), FAMILIES[name].denoiser
    plain = load_model(bases(name), CPU)
    assert base_notes(bases(name)) == []
    shutil.copytree(bases(name), tmp_path / "base")
    file = next((tmp_path / "base" / denoiser).glob("*.safetensors"))
    save_file({key: value.to(stored) for key, value in load_file(file).items()}, file, {"format": "pt"})
    lone = {key: value.to(stored).contiguous() for key, value in plain.original_weights().items()}
    save_file(lone, tmp_path / "base" / "model.safetensors")
    for base, parts in ((tmp_path / "base", denoiser), (tmp_path / "base" / "model.safetensors", "text_encoder")):
        [note] = base_notes(str(base))
        assert parts in note and "in 8 bits" in note
        ours, whole = load_model(str(base), CPU).denoiser.state_dict(), plain.denoiser.state_dict()
        assert all(torch.equal(ours[key], value.to(stored).float()) for key, value in whole.items())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sdxl-turbo", "its name says turbo"),
        ("Hyper-SDXL-1step", "its name says Hyper"),
        ("sd_xl_LCM", "its name says LCM"),
        ("hyperrealism_turbot", None),
        ("plain", "its scheduler is TCDScheduler"),
    ],
)
def test_a_base_that_draws_in_a_few_steps_is_told(
    name: str, reason: str | None, bases: Callable[[str], str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bases("sdxl"), tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors")))
    if name == "plain":
        scheduler = folder / "scheduler" / "scheduler_config.json"
        scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"_class_name": "TCDScheduler"}))
    notes = base_notes(str(folder))
    assert len(notes) == (reason is not None)
    assert all(f"distilled to draw in a few steps ({reason})" in note for note in notes)


def test_weights_that_are_no_numbers_are_refused(bases: Callable[[str], str], tmp_path: Path) -> None:
    shutil.copytree(bases("sd"), tmp_path / "base")
    file = next((tmp_path / "base" / "vae").glob("*.safetensors"))
    weights = load_file(file)
    weights["decoder.conv_in.bias"][2] = float("nan")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"vae of .* that are infinite or no numbers \(decoder.conv_in.bias\)"):
        load_model(str(tmp_path / "base"), CPU)
