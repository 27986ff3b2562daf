"""A model is known by all of its bytes, wherever it lies."""

import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from dreamloom.base.files.fingerprint import fingerprint


def test_a_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    for name, last in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "weights").write_bytes(bytes(3_000_000) + last)
    (tmp_path / "b" / ".cache").mkdir()
    (tmp_path / "b" / ".cache" / "lock").touch()
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "c")
    assert fingerprint("org/model") == "id:org/model"


def test_one_tensor_in_the_middle_of_a_large_file_makes_another_model(tmp_path: Path) -> None:
    tensors = {f"block.{number:02d}": np.full(100_000, number, np.float32) for number in range(50)}
    save_file(tensors, tmp_path / "a.safetensors")
    prints = {fingerprint(tmp_path / "a.safetensors")}
    for number in range(50):
        save_file(tensors | {f"block.{number:02d}": tensors["block.00"] + 100}, tmp_path / "b.safetensors")
        prints.add(fingerprint(tmp_path / "b.safetensors"))
    assert len(prints) == 51


def test_a_touched_model_is_the_same_one(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(100))
    before = fingerprint(tmp_path)
    os.utime(tmp_path / "weights", ns=(1, 1))
    assert fingerprint(tmp_path) == before
