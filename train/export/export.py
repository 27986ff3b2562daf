"""A trained model as other programs read it: a diffusers folder, and one file with Stable Diffusion's original keys."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit_folder, commit_json, fingerprint
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import StageConfig, recipe
from dreamloom.train.config import TrainConfig
from dreamloom.train.run.find import Source, find_source

VERSION = 1
MARK = "dreamloom.json"
"""The file that says how an export was made; a folder without it is not ours to replace."""
SINGLE_FILE = "model.safetensors"


class ExportConfig(StageConfig):
    """Writes a trained model in diffusers' format and, where its layers have original names, as one file."""

    dtype: Literal["fp16", "fp32"] = Field("fp16", description="Of the written weights.")
    use_ema: bool = Field(True, description="Write the averaged weights, where the checkpoint has them.")
    merge_lora: bool = Field(
        True, description="Of a LoRA: write the whole model too, with the adapters merged into it."
    )
    single_file: bool = Field(True, description=f"Write {SINGLE_FILE} too, for A1111, ComfyUI and others.")


@dataclass(frozen=True)
class ExportSummary:
    """What was written."""

    folder: str
    """A diffusers folder; with adapters in files of their own (train.model.lora), where these were trained."""
    single_file: str | None
    bytes: int
    """Of all files."""
    made: bool
    """False: it was there already, made from the same weights in the same way."""
    images_seen: int
    """By the checkpoint that it is made from."""
    note: str = ""
    """Why there is no single file, where one was wanted."""


def export(
    checkpoint: Path | str, target: Path | str, config: ExportConfig, progress: Progress = silent
) -> ExportSummary:
    """Writes a run's model.

    Args:
        checkpoint: a checkpoint of a run, or a run, whose best is taken or its newest where
            nothing was measured.
        target: the folder to write; an earlier export there is replaced, whole.

    Raises:
        UserError: there is no such checkpoint, or `target` holds something else than an export.
    """
    checkpoint, target = Path(checkpoint), Path(target)
    _check_target(target)
    source, settings = _find(checkpoint)
    made = _recipe(checkpoint, config)
    stored = _read_mark(target)
    if stored.get("recipe") != made:
        from dreamloom.base.disk import explain_write_errors
        from dreamloom.train.export.writers import write_model  # torch from here on

        with explain_write_errors(target, "make room and export again"), commit_folder(target) as folder:
            note = write_model(source, folder, config, progress)
            single = SINGLE_FILE if (folder / SINGLE_FILE).exists() else None
            about = {"base": settings.base, "vae": settings.vae, "checkpoint": str(source.checkpoint)}
            commit_json(folder / MARK, {"recipe": made, **about, "single_file": single, "note": note})
    now = _read_mark(target)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    single = str(target / now["single_file"]) if now["single_file"] else None
    assert source.checkpoint is not None
    seen = int(json.loads((source.checkpoint / "state.json").read_text(encoding="utf-8"))["images_seen"])
    return ExportSummary(str(target), single, size, stored.get("recipe") != made, seen, now["note"])


def is_current(checkpoint: Path, target: Path, config: ExportConfig) -> bool:
    """Whether `target` holds this model already, made from the same weights in the same way.

    Raises:
        UserError: there is no such checkpoint.
    """
    return _read_mark(target).get("recipe") == _recipe(checkpoint, config)


def _find(checkpoint: Path) -> tuple[Source, TrainConfig]:
    source = find_source(checkpoint)
    if source.checkpoint is None or source.config is None:
        raise UserError(f"{checkpoint} is a whole model already; name a run, or one of its checkpoints.")
    return source, source.config


def _recipe(checkpoint: Path, config: ExportConfig) -> str:
    source, settings = _find(checkpoint)
    models = {"base": fingerprint(settings.base), "checkpoint": fingerprint(str(source.checkpoint))}
    return recipe("export", VERSION, config, models=models)


def _check_target(target: Path) -> None:
    if target.exists() and not (target / MARK).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} holds something that is not an export of dreamloom; name a new folder.")


def _read_mark(target: Path) -> dict[str, str]:
    file = target / MARK
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except ValueError:
        return {}  # damaged, so it is made again
