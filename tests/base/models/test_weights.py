"""What lies in place of weights is told by its first bytes, before anything long begins."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from dreamloom.base.errors import UserError
from dreamloom.base.models.clip_config import ClipConfig, check_clip
from dreamloom.base.models.weights import check_weights, read_safetensors_header
from dreamloom.caption.check import check as check_captioning
from dreamloom.caption.config import CaptionConfig
from dreamloom.curate.config import ScoreConfig
from dreamloom.curate.score import check as check_score

WHOLE = save({"weight": torch.zeros(64)}, {"a": "b"})
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4265146304\n"


def torch_file(*, is_zip: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(64)}, stream, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("model.safetensors", WHOLE)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt", "x.bin", "x.PTH"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (POINTER, "a pointer of Git LFS; run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"<HTML lang=en>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
        (b"", "empty"),
        (b"\0" * 5000, "empty"),
        (b'{"error": "Repository not found"}', "a text"),
        ("Café: no entry\n".encode() * 100, "a text"),
        (b"\x1f\x8b\x08\x00", "packed with gzip; unpack it"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
    ],
)
def test_what_is_no_weights_is_told(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"it is {what}"):
        check_weights([tmp_path / name])


@pytest.mark.parametrize("length", [len(WHOLE) - 1, len(WHOLE) - 256, 9, 7])
def test_a_safetensors_file_that_is_cut_off_is_told(tmp_path: Path, length: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(WHOLE[:length])
    with pytest.raises(UserError, match=r"cut off: |longer than the file"):
        check_weights([tmp_path / "x.safetensors"])


def test_one_kind_of_weights_under_the_name_of_the_other_is_told(tmp_path: Path) -> None:
    for content, what in [
        (archive(), "a zip; unpack it"),
        (torch_file(), "a zip; "),
        (torch_file(is_zip=False), "a pickle; call it .ckpt"),
    ]:
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=f"it is {what}"):
            check_weights([tmp_path / "x.safetensors"])
    (tmp_path / "x.ckpt").write_bytes(torch_file()[:-50])
    with pytest.raises(UserError, match="it is cut off"):
        check_weights([tmp_path / "x.ckpt"])


def test_weights_pass_and_what_has_another_name_is_not_looked_at(tmp_path: Path) -> None:
    contents = {"a.safetensors": WHOLE, "b.ckpt": torch_file(), "c.bin": torch_file(is_zip=False), "d.json": b"{}"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    check_weights(tmp_path.iterdir())
    assert read_safetensors_header(tmp_path / "a.safetensors")["__metadata__"] == {"a": "b"}


def test_each_stage_tells_it_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    (tmp_path / "open_clip_config.json").write_text("{}")
    for name in ("model.safetensors", "open_clip_model.safetensors", "head.pth"):
        (tmp_path / name).write_bytes(POINTER)
    checks: list[Callable[[], None]] = [
        lambda: check_captioning(CaptionConfig(model=str(tmp_path))),
        lambda: check_clip(ClipConfig(model=str(tmp_path))),
        lambda: check_clip(ClipConfig(model="ViT-B-32", pretrained=str(tmp_path / "head.pth"))),
        lambda: check_score(ScoreConfig(model="ViT-B-32", aesthetic_head=tmp_path / "head.pth")),
    ]
    for check in checks:
        with pytest.raises(UserError, match="a pointer of Git LFS"):
            check()
