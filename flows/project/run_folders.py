"""Finds the folder of a project's training run, and what lies in it.

A run belongs to a recipe: the dataset's content, the train section and the models. The recipe is written into the run's
folder when training begins, so that the same project finds its run again.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamloom.base.files.atomic import commit_text
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.files.own_folders import own_folder_kind
from dreamloom.base.tables import held_out
from dreamloom.base.tables.streamed_set import find_streamed_set
from dreamloom.curate.manifest import TRAIN, content_digest, manifest_path, read_manifest
from dreamloom.train.config import TrainConfig
from dreamloom.train.run.contents import read_images
from dreamloom.train.run.folder import (
    discard_unbegun,
    has_begun,
    read_config,
    read_settings,
    read_summary,
    train_recipe,
)

if TYPE_CHECKING:
    from dreamloom.train.loop.continuing import Continuation

_RECIPE_FILE = ".recipe"
"""Holds the project's recipe, which knows the dataset by its manifest and so needs not read the images."""


def run_folder(workspace: Path, config: TrainConfig) -> Path:
    """Returns the folder of the run of the dataset as it is now with this config: an existing one, or a new name.

    Raises:
        UserError: there is no dataset.
    """
    wanted = _train_recipe(workspace, config)
    for file in sorted((workspace / "runs").glob(f"*/{_RECIPE_FILE}")):
        if file.read_text(encoding="utf-8") == wanted:
            return file.parent
    return _new_name(workspace / "runs")


@contextmanager
def claim_run_folder(workspace: Path, config: TrainConfig) -> Iterator[Path]:
    """Yields `run_folder` with the recipe in it, so that later calls find it, unless the run could not begin."""
    folder = run_folder(workspace, config)
    if not (folder / _RECIPE_FILE).exists():
        commit_text(folder / _RECIPE_FILE, _train_recipe(workspace, config))
    try:
        yield folder
    finally:
        if not has_begun(folder):
            (folder / _RECIPE_FILE).unlink(missing_ok=True)
            discard_unbegun(folder)


@dataclass(frozen=True)
class Postponed:
    """A run that does not begin yet, as too few images are new."""

    last: Path
    """The folder of the last finished run."""
    new_images: int
    """Images of the training folder that it did not see."""


def find_postponed(workspace: Path, config: TrainConfig, min_new_images: int) -> Postponed | None:
    """Returns why the run of the dataset as it is now is not worth its time; None where it is, or has begun.

    Args:
        min_new_images: images that the last finished run has not seen, from which on it is.

    Raises:
        UserError: there is no dataset.
    """
    if has_begun(run_folder(workspace, config)):
        return None
    finished = [path.parent for path in (workspace / "runs").glob("*/summary.json") if read_summary(path.parent)]
    last = max(finished, default=None)
    seen = read_images(last) if last else None
    if last is None or seen is None:
        return None
    contents = {content for _, content in seen}
    manifest = read_manifest(manifest_path(workspace)).select(["split", "sha256"]).to_pylist()
    new = {row["sha256"] for row in manifest if row["split"] == TRAIN} - contents
    return Postponed(last, len(new)) if len(new) < min_new_images else None


def disown_run_folder(workspace: Path, config: TrainConfig) -> None:
    """Leaves the run that `run_folder` finds to itself: the next call names a new folder."""
    (run_folder(workspace, config) / _RECIPE_FILE).unlink(missing_ok=True)


def continuation_folder(run: Path, max_train_steps: int | None, epochs: int | None) -> Path:
    """Returns the folder of the run that goes on from this one to that length: an existing one, or a new name."""
    finished = read_settings(run)
    for settings_file in sorted(run.absolute().parent.glob("*/config.json")):
        if own_folder_kind(settings_file.parent) != "run":
            continue
        settings = read_settings(settings_file.parent)
        length = settings["config"].get("max_train_steps"), settings["config"].get("epochs")
        continued = settings.get("continued") or {"run": "", "recipe": ""}
        is_this = (Path(continued["run"]).name, continued["recipe"]) == (run.absolute().name, finished["recipe"])
        if is_this and length in ((max_train_steps, epochs), (max_train_steps, finished["config"]["epochs"])):
            return settings_file.parent
    return _new_name(run.absolute().parent)


def note_project(run: Path, longer: "Continuation") -> str:
    """Lets a project whose run goes on find the longer one, if that is what its config would make at once.

    Returns:
        What to write in project.yaml, in a sentence; empty for a run of no project.
    """
    workspace = run.absolute().parent.parent
    before, file = read_config(run), run / _RECIPE_FILE
    if before is None or not file.is_file() or not manifest_path(workspace).exists():
        return ""
    if longer.reason:
        return f"`run` does not take it, as it would get other weights at once; `dreamloom export {longer.run} FOLDER`"
    if file.read_text(encoding="utf-8") != _train_recipe(workspace, before):
        return ""
    commit_text(longer.run / _RECIPE_FILE, _train_recipe(workspace, longer.config))
    length = longer.config.max_train_steps
    key = f"epochs: {longer.config.epochs}, and no max_train_steps," if length is None else f"max_train_steps: {length}"
    return f"write {key} under train in project.yaml, and `run` takes it"


def newest_speed(workspace: Path) -> float | None:
    """Returns the images a second of the newest finished run; None where there is none."""
    summaries = sorted((workspace / "runs").glob("*/summary.json"), reverse=True)
    summary = read_summary(summaries[0].parent) if summaries else None
    return summary.images_per_second if summary else None


def run_charts(run: Path) -> dict[str, Path]:
    """Returns the images in a run's folder that show how training goes, by name, as far as they exist."""
    files = {"learned and forgotten": run / "learned_forgotten.png", "samples": run / "samples.png"}
    return {name: file for name, file in files.items() if file.is_file()}


def heldout_folder(workspace: Path) -> Path | None:
    """Returns the folder of a workspace's held-out images; None where none are held out."""
    folder = workspace / "heldout"
    streamed = find_streamed_set(folder)
    return folder if (streamed.kinds() if streamed else folder.is_dir() and any(folder.iterdir())) else None


def _new_name(runs: Path) -> Path:
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    taken = sum(1 for _ in runs.glob(f"{name}*"))
    return runs / (f"{name}_{taken + 1}" if taken else name)


def _train_recipe(workspace: Path, config: TrainConfig) -> str:
    concepts, streamed = workspace / "heldout" / held_out.FILE, find_streamed_set(workspace / "heldout")
    shown = [fingerprint(concepts)] if config.needs_concepts and concepts.is_file() else []
    shown += [repr(streamed.held_out())] if config.needs_concepts and streamed else []
    return train_recipe(config, [content_digest(manifest_path(workspace)), *shown])
