"""A project's training runs: which folder belongs to which recipe, and what train, evaluate and export make of it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit_json, commit_text, fingerprint
from dreamloom.base.progress import Progress
from dreamloom.base.stage import recipe
from dreamloom.curate.assemble import content, manifest_path
from dreamloom.flows.steps import WHOLE, Outcome, Step
from dreamloom.flows.terminal import size
from dreamloom.train.config import TrainConfig
from dreamloom.train.dreambooth import DreamBoothConfig, dreambooth
from dreamloom.train.evaluate.evaluate import EvaluateConfig, evaluate
from dreamloom.train.export import export as exporting
from dreamloom.train.export.export import ExportConfig
from dreamloom.train.loop.loop import train
from dreamloom.train.run.folder import VERSION, TrainSummary, read_summary

_RECIPE = ".recipe"
"""In a run's folder: the recipe of the chain, which knows the dataset by its manifest and so needs no look at it."""


def run_of(workspace: Path, config: TrainConfig) -> Path:
    """The folder of the run that the dataset as it is now and this config make: one that is there, or a new one.

    Raises:
        UserError: there is no dataset.
    """
    made = _train_recipe(workspace, config)
    for file in sorted((workspace / "runs").glob(f"*/{_RECIPE}")):
        if file.read_text(encoding="utf-8") == made:
            return file.parent
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    taken = sum(1 for _ in (workspace / "runs").glob(f"{name}*"))
    return workspace / "runs" / (f"{name}_{taken + 1}" if taken else name)


def project_train_step(workspace: Path, config: TrainConfig) -> Step:
    """The training folder of a workspace → a run in it."""

    def make(progress: Progress, _: Sequence[str] | None) -> Outcome:
        run = run_of(workspace, config)
        if not (run / _RECIPE).exists():
            commit_text(run / _RECIPE, _train_recipe(workspace, config))
        return _train(workspace / "dataset", run, config, held_out_of(workspace), progress)

    return Step(
        "train",
        "",
        lambda: [] if read_summary(run_of(workspace, config)) else [WHOLE],
        make,
        charts=lambda: charts_of(run_of(workspace, config)),
    )


def train_step(folder: Path, run: Path, config: TrainConfig, heldout: Path | None) -> Step:
    """Any training folder → a run."""
    return Step(
        "train",
        "",
        lambda: [] if read_summary(run) else [WHOLE],
        lambda progress, _: _train(folder, run, config, heldout, progress),
        charts=lambda: charts_of(run),
    )


def dreambooth_step(subjects: Path, target: Path, config: DreamBoothConfig) -> Step:
    """Subjects → a training folder with images of their classes."""

    def make(progress: Progress, _: Sequence[str] | None) -> Outcome:
        done = dreambooth(subjects, target, config, progress)
        said = f"{done.subjects} subjects, {done.pictures:,} images of them, {done.class_pictures:,} of their classes"
        return Outcome(f"{'dreambooth':<21}{said} ({done.drawn:,} drawn now); {target}", done.drawn > 0)

    return Step("dreambooth", "", lambda: [WHOLE], make)


def evaluate_step(
    model: Callable[[], Path | str], base: str, heldout: Path, config: EvaluateConfig, output: Path
) -> Step:
    """A run or model → what it learned and forgot, in the file `output`; nothing where it is there by this recipe."""

    def wanted() -> str:
        prints = [fingerprint(model()), fingerprint(base), fingerprint(heldout)]
        return recipe("evaluate", 1, config, prints)

    def make(progress: Progress, _: Sequence[str] | None) -> Outcome:
        if _recipe_in(output) == wanted():
            evaluation = json.loads(output.read_text(encoding="utf-8"))["evaluation"]
            return Outcome(_evaluated(evaluation, "there already"), made=False)
        if output.exists() and _recipe_in(output) is None:
            raise UserError(f"{output} is there, and is no evaluation; name another file for this one.")
        evaluation = evaluate(model(), base, heldout, config, progress).to_dict()
        commit_json(output, {"recipe": wanted(), "evaluation": evaluation})
        return Outcome(_evaluated(evaluation, str(output)), made=True)

    return Step("evaluate", "", lambda: [] if _recipe_in(output) == wanted() else [WHOLE], make)


def export_step(checkpoint: Callable[[], Path], target: Path, config: ExportConfig) -> Step:
    """A run's weights → the model folder `target`."""

    def make(progress: Progress, _: Sequence[str] | None) -> Outcome:
        summary = exporting.export(checkpoint(), target, config, progress)
        how = size(summary.bytes) if summary.made else "there already"
        said = f"{target}, as of {summary.images_seen:,} images seen; {how}{indented(summary.note)}"
        return Outcome(f"{'export':<21}{said}", summary.made)

    def stale() -> list[str]:
        return [] if exporting.is_current(checkpoint(), target, config) else [WHOLE]

    return Step("export", "", stale, make)


def newest_speed(workspace: Path) -> float | None:
    """Pictures a second of the newest finished run; None where there is none."""
    runs = sorted((workspace / "runs").glob("*/summary.json"), reverse=True)
    summary = read_summary(runs[0].parent) if runs else None
    return summary.images_per_second if summary else None


def charts_of(run: Path) -> dict[str, Path]:
    """The images in a run's folder that show how it goes, as far as they are there."""
    files = {"learned and forgotten": run / "learned_forgotten.png"}
    if samples := sorted((run / "samples").glob("*.png")):
        files["samples"] = samples[-1]
    return {name: file for name, file in files.items() if file.is_file()}


def held_out_of(workspace: Path) -> Path | None:
    """The folder of held-out images of a workspace; None where none are held out."""
    folder = workspace / "heldout"
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def _train_recipe(workspace: Path, config: TrainConfig) -> str:
    models = {"base": fingerprint(config.base)} | ({"vae": fingerprint(config.vae)} if config.vae else {})
    return recipe("train", VERSION, config, [content(manifest_path(workspace))], models)


def _train(folder: Path, run: Path, config: TrainConfig, heldout: Path | None, progress: Progress) -> Outcome:
    made = read_summary(run) is None
    summary = train(folder, run, config, heldout, progress)
    if not summary.finished:
        said = f"stopped and saved after {summary.images_seen:,} of {summary.images:,} images; run again to go on"
    else:
        said = f"{summary.steps:,} steps, {summary.images_seen:,} images seen{_figures(summary)}; "
        said += str(run) if made else "there already"
    left_out = f"{summary.problems:,} images took no part; {run / 'problems.json'} says why" if summary.problems else ""
    return Outcome(f"{'train':<21}{said}{indented(left_out)}", made, finished=summary.finished)


def _figures(summary: TrainSummary) -> str:
    text = ""
    if summary.learned is not None:
        text += f", learned {percent(summary.learned, summary.learned_error)}"
    if summary.forgotten is not None:
        text += f", forgotten {percent(summary.forgotten, summary.forgotten_error)}"
    return text


def percent(change: float, error: float | None) -> str:
    """ "12.3 ± 0.8 %"."""
    return f"{100 * change:.1f} %" if error is None else f"{100 * change:.1f} ± {100 * error:.1f} %"


def _evaluated(evaluation: Mapping[str, Any], where: str) -> str:
    found = [
        f"{name} {percent(measure['change'], measure['error'])} ({measure['pictures']} images)"
        for name in ("learned", "forgotten")
        if (measure := evaluation[name])
    ]
    return f"{'evaluate':<21}{', '.join(found) or 'nothing held out'}; {where}"


def indented(note: str) -> str:
    """A note below a line; nothing where there is none."""
    return f"\n  {note}" if note else ""


def _recipe_in(note: Path) -> str | None:
    """The recipe in a note beside a result; None where there is no such note."""
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["recipe"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
