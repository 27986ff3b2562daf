"""Reads and writes evaluations: the file of `dreamloom evaluate`, and what a run measured (train.loop.history)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.tables.held_out import HeldOutImages, from_json
from dreamloom.base.versions import DAMAGED, RUN, known_fields, rename_keys
from dreamloom.train.evaluate.measure import MEASURES, Evaluation, GroupMeasure, Measure, compare_losses
from dreamloom.train.run import migrations
from dreamloom.train.run.folder import best_point


def write_evaluation(file: Path, evaluation: Evaluation, recipe: str) -> None:
    """Writes an evaluation, with the recipe by which it was made."""
    RUN.write_json(file, {"recipe": recipe, "evaluation": evaluation.to_dict()})


def stored_recipe(file: Path) -> str | None:
    """Returns the recipe in a file that `write_evaluation` wrote; None if the file is missing or is another.

    Raises:
        UserError: a newer release wrote it in another way.
    """
    try:
        stored = RUN.read_json(file)
        return str(stored["recipe"]) if "evaluation" in stored else None
    except DAMAGED:
        return None


def read_evaluation(path: Path | str, images: HeldOutImages | None = None) -> Evaluation | None:
    """Reads what a model learned and forgot, as it was measured before.

    Args:
        path: a run, whose best point is taken, as `export` does; or a file that `dreamloom evaluate` wrote.
        images: what is known of a run's held-out images today; None: what was known when they were measured.

    Returns:
        None for a run that has measured nothing yet, or has no images to measure by.

    Raises:
        UserError: the file can't be read, holds something else, or a newer release wrote it in another way.
    """
    path = Path(path).expanduser()
    file = path / "evaluation.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        return None
    try:
        stored = RUN.read_json(file)
        return _of_file(stored["evaluation"]) if "evaluation" in stored else _of_run(stored, images)
    except DAMAGED as error:
        raise UserError(f"{file} is no evaluation that can be read ({error}); name a run, or another file.") from error


def _of_run(stored: Mapping[str, Any], images: HeldOutImages | None) -> Evaluation | None:
    best = best_point([point for point in stored["points"] if str(point["images_seen"]) in stored["now"]])
    if best is None:
        return None
    now = stored["now"][str(best)]
    images = from_json(stored.get("images", {})) if images is None else images
    return compare_losses(stored["base"], now, images, stored["problems"])


def _of_file(stored: Mapping[str, Any]) -> Evaluation:
    measures = {name: _measure(stored.get(name)) for name in MEASURES}  # version 1.1 added one
    groups = tuple(GroupMeasure(**known_fields(GroupMeasure, group)) for group in stored.get("groups", ()))
    sets = {name: found for name, each in stored.get("sets", {}).items() if (found := _measure(each))}
    further = {"problems": tuple(stored["problems"]), "groups": groups, "sets": sets}
    return Evaluation(**{**known_fields(Evaluation, stored), **measures, **further})


def _measure(stored: Mapping[str, Any] | None) -> Measure | None:
    return Measure(**known_fields(Measure, rename_keys(stored, migrations.MEASURE))) if stored else None
