"""Bases stored in 8 bits without scales, as ComfyUI has them: taken by casting, and told."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamloom.train.families.eight_bits import eight_bit_notes
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.registry import FAMILIES
from tests.train.conftest import CPU


@pytest.mark.parametrize(("name", "dtype"), [("sd", "e4m3fn"), ("sdxl", "e5m2"), ("sd3", "e4m3fn")])
def test_values_of_8_bits_are_taken_as_they_are_and_told(
    name: str, dtype: str, bases: Callable[[str], str], tmp_path: Path
) -> None:
    stored, denoiser = getattr(torch, f"float8_{dtype}"), FAMILIES[name].denoiser
    plain = load_model(bases(name), CPU)
    assert eight_bit_notes(bases(name)) == []
    shutil.copytree(bases(name), tmp_path / "base")
    file = next((tmp_path / "base" / denoiser).glob("*.safetensors"))
    save_file({key: value.to(stored) for key, value in load_file(file).items()}, file, {"format": "pt"})
    lone = {key: value.to(stored).contiguous() for key, value in plain.original_weights().items()}
    save_file(lone, tmp_path / "base" / "model.safetensors")
    for base, parts in ((tmp_path / "base", denoiser), (tmp_path / "base" / "model.safetensors", "text_encoder")):
        [note] = eight_bit_notes(str(base))
        assert parts in note and "in 8 bits" in note
        ours, whole = load_model(str(base), CPU).denoiser.state_dict(), plain.denoiser.state_dict()
        assert all(torch.equal(ours[key], value.to(stored).float()) for key, value in whole.items())
