"""Exports a trained model in the formats that other programs read; dreamloom.train.export.writers lists them."""

from dataclasses import dataclass
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_folder
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import recipe
from dreamloom.base.versions import EXPORT
from dreamloom.train.config import TrainConfig
from dreamloom.train.export.card import title_of, write_card
from dreamloom.train.export.config import SINGLE_FILE, ExportConfig
from dreamloom.train.run.checksums import read_images_seen
from dreamloom.train.run.find import TrainedModel, find_trained_model

VERSION = 3
"""Raised when the same config and weights would give other files."""
MARK = "dreamloom.json"
"""Says how an export was made. A folder without this file is not ours to replace."""


@dataclass(frozen=True)
class ExportSummary:
    """What was exported."""

    folder: str
    """A diffusers folder. Adapters, if these were trained, are in files of their own (lora_files.py)."""
    single_file: str | None
    """The single file, if there is one."""
    bytes: int
    """Size of all files."""
    changed: bool
    """False if the export was there already, made by the same recipe."""
    images_seen: int
    """Images seen by the exported checkpoint."""
    note: str = ""
    """Why a format that was asked for could not be written."""


def export(
    checkpoint: Path | str, target: Path | str, config: ExportConfig, progress: Progress = silent
) -> ExportSummary:
    """Exports a run's model, unless it is exported already.

    Args:
        checkpoint: a checkpoint of a run, or a run, whose best checkpoint is taken (else its newest).
        target: the folder to write; an earlier export there is replaced as a whole.
        config: which weights and formats are written.
        progress: called with the formats written.

    Raises:
        UserError: there is no such checkpoint, or `target` holds something other than an export.
    """
    checkpoint, target = Path(checkpoint), Path(target)
    _check_target(target)
    trained, found, settings = _find_checkpoint(checkpoint)
    wanted = _export_recipe(found, settings, config)
    is_stale = read_mark(target).get("recipe") != wanted
    if is_stale:
        from dreamloom.base.files.disk import explain_write_errors
        from dreamloom.train.export.writers import write_model  # imports torch

        with explain_write_errors(target, "make room and export again"), commit_folder(target) as folder:
            note = write_model(trained, folder, config, progress)
            write_card(found, settings, folder, title_of(found, config))
            single_file = SINGLE_FILE if (folder / SINGLE_FILE).exists() else None
            origin = {"base": settings.base, "vae": settings.vae, "checkpoint": str(found)}
            EXPORT.write_json(folder / MARK, {"recipe": wanted, **origin, "single_file": single_file, "note": note})
    mark = read_mark(target)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    single_file = str(target / mark["single_file"]) if mark["single_file"] else None
    images_seen = read_images_seen(found)
    return ExportSummary(str(target), single_file, size, is_stale, images_seen, mark["note"])


def is_current(checkpoint: Path, target: Path, config: ExportConfig) -> bool:
    """Tells whether `target` holds an export of this checkpoint with this config.

    Raises:
        UserError: there is no such checkpoint.
    """
    _, found, settings = _find_checkpoint(checkpoint)
    return read_mark(target).get("recipe") == _export_recipe(found, settings, config)


def _find_checkpoint(checkpoint: Path) -> tuple[TrainedModel, Path, TrainConfig]:
    """Finds what is exported: the trained model, its checkpoint, and the config of its run."""
    if not checkpoint.expanduser().exists():
        raise UserError(f"There is no {checkpoint}; name a run, or a checkpoint of one.")
    trained = find_trained_model(checkpoint)
    if trained.checkpoint is None or trained.config is None:
        raise UserError(f"{checkpoint} is neither a run nor a checkpoint of one, which is what export takes; name one.")
    return trained, trained.checkpoint, trained.config


def _export_recipe(checkpoint: Path, settings: TrainConfig, config: ExportConfig) -> str:
    models = {"base": fingerprint(settings.base), "checkpoint": fingerprint(str(checkpoint))}
    return recipe("export", VERSION, config, models=models)


def _check_target(target: Path) -> None:
    if target.exists() and not (target / MARK).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} holds something that is not an export of dreamloom; name a new folder.")


def read_mark(target: Path) -> dict[str, str]:
    """Reads how an export was made; empty if `target` is none of ours."""
    file = target / MARK
    try:
        return EXPORT.read_json(file) if file.is_file() else {}
    except ValueError:
        return {}  # it is damaged, so the model is exported again
