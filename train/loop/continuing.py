"""Makes a run that goes on from a finished one: more steps or epochs, without what it did before.

Where all that was done is what a run of the greater length would have done by then, the new run ends with the same bits
as that one. Else it is a warm start: weights, averages and the optimizer's state are taken over, and the sentence in
`Continuation.reason` says why it is no more.
"""

import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_folder, link
from dreamloom.base.progress import Progress, silent
from dreamloom.base.versions import RUN
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset, Problem
from dreamloom.train.data.ratio_schedule import make_schedule
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.evaluate.datasets import read_datasets
from dreamloom.train.run.checksums import CHECKSUMS, check_files, write_checksums
from dreamloom.train.run.folder import (
    list_checkpoints,
    read_config,
    read_settings,
    read_summary,
    run_recipe,
    warm_recipe,
)

_COPIED = ("evaluation.json", "environments.json", "log.jsonl", "problems.json", "images.parquet")
"""What a run takes over beside its checkpoints and samples. log.jsonl is added to, so it is no link."""


@dataclass(frozen=True)
class Continuation:
    """A run that goes on from another one, and that is not begun yet, or was begun before."""

    run: Path
    folder: Path
    """The training folder."""
    heldout: Path | None
    config: TrainConfig
    begins_at: int
    """Images seen."""
    reason: str
    """Why it does not end with the bits of a run that was asked for at once; empty if it does."""


def continue_run(
    run: Path, target: Path, max_train_steps: int | None = None, epochs: int | None = None, progress: Progress = silent
) -> Continuation:
    """Makes the folder of a longer run, whose first part is a finished run; `train` on it goes on.

    Args:
        run: the finished run, in which nothing is changed.
        target: the folder to make; one that was made by the same call is found again.
        max_train_steps: optimizer steps of the whole run.
        epochs: epochs of the whole run.
        progress: called with the images read.

    Raises:
        UserError: the run can't be gone on from, or is as long already.
    """
    settings, before, newest = _check(run)
    config = _lengthened(before, max_train_steps, epochs)
    folder, heldout = Path(settings["folder"]), settings["heldout"]
    dataset, heldout_datasets = read_datasets(folder, Path(heldout) if heldout else None, before, progress)
    trained = warm_recipe(run_recipe(dataset, heldout_datasets, before, progress), settings.get("continued"))
    if trained != settings["recipe"]:
        raise UserError(f"{folder} or a model changed since {run} was trained, so it can't go on; train anew.")
    was, now = (make_schedule(_without_problems(dataset, run), each) for each in (before, config))
    reason = _why_not_exact(run, before, was, now, int(newest.name))
    begins_at = int(newest.name) // now.step_size * now.step_size
    if now.num_images <= int(newest.name):
        raise UserError(
            f"{run} has shown {int(newest.name):,} images, and so long a run shows {now.num_images:,}; name "
            "more steps or epochs."
        )
    continued = {"run": str(run.absolute()), "recipe": settings["recipe"], "images_seen": begins_at, "reason": reason}
    recipe = warm_recipe(run_recipe(dataset, heldout_datasets, config, progress), continued)
    found = Continuation(target, folder, Path(heldout) if heldout else None, config, begins_at, reason)
    stored = read_settings(target).get("continued")
    if stored is None or stored | {"run": continued["run"]} != continued:  # the run may have been moved
        _write(run, found, {**settings, "continued": continued, "recipe": recipe, "began": None}, newest)
    return found


def _check(run: Path) -> tuple[dict[str, Any], TrainConfig, Path]:
    """Returns the settings, config and newest checkpoint of a run that can be gone on from."""
    config, summary, checkpoints = read_config(run), read_summary(run), list_checkpoints(run)
    if config is None:
        raise UserError(f"{run} is no training run; name the folder of one, such as WORKSPACE/runs/TIME.")
    if summary is None:
        raise UserError(f"{run} is not finished; the command that began it goes on with it.")
    if summary.ended:
        raise UserError(f"{run} {summary.ended}. It goes no further; train anew with another patience or limit.")
    if not checkpoints or not (checkpoints[-1] / "optimizer.pt").is_file():
        raise UserError(f"{run} has lost its optimizer's state, as prune drops it, so it can't go on; train anew.")
    check_files(checkpoints[-1])
    return read_settings(run), config, checkpoints[-1]


def _lengthened(config: TrainConfig, max_train_steps: int | None, epochs: int | None) -> TrainConfig:
    if (max_train_steps is None) == (epochs is None):
        raise UserError("Name either --max-train-steps or --epochs, of the whole run.")
    length = {"max_train_steps": max_train_steps} | ({} if epochs is None else {"epochs": epochs})
    try:
        return TrainConfig.model_validate(config.model_dump() | length)
    except ValidationError as error:
        raise UserError(f"{next(iter(error.errors()[0]['loc']))}: {error.errors()[0]['msg']}") from error


def _without_problems(dataset: Dataset, run: Path) -> Dataset:
    """Leaves out the images that the run left out as they could not be decoded."""
    names = {sample.name for sample in dataset.samples}
    file = run / "problems.json"
    problems = RUN.read_json(file) if file.is_file() else {}
    return dataset.without([Problem(name, reason) for name, reason in problems.items() if name in names])


def _why_not_exact(run: Path, config: TrainConfig, before: BatchSchedule, now: BatchSchedule, images_seen: int) -> str:
    """Returns why the steps so far are not those of a longer run; empty if they are."""
    schedules = {config.lr_scheduler, config.text_encoder_lr_scheduler or config.lr_scheduler} - {"constant"}
    if schedules:
        return f"the learning rate follows {' and '.join(sorted(schedules))} over the whole run"
    if config.timestep_curriculum_power:
        return "its timestep curriculum reaches over the whole run"
    if config.auto_ratio:
        return "its ratio is decided at evaluations, which come at other times in a longer run"
    if read_settings(run).get("continued", {}).get("reason"):
        return "the run that it goes on from was a warm start itself"
    if images_seen % now.step_size:
        return "the last step of a run may show fewer images than the others"
    begin = max((end for end in before.epoch_ends if end < images_seen), default=0)  # earlier steps know no length
    begin -= begin % now.step_size
    count = (images_seen - begin) // now.step_size
    if list(before.steps_after(begin)) != list(islice(now.steps_after(begin), count)):
        return "max_train_steps cut its last epoch short, of which a longer run shows other images first"
    return ""


def _write(run: Path, found: Continuation, settings: dict[str, Any], newest: Path) -> None:
    """Makes the folder: links of checkpoints and samples, copies of what is added to, and its own config.json."""
    if found.run.exists():
        raise UserError(f"{found.run} exists and is another run; name a new folder with --output.")
    with commit_folder(found.run) as folder:
        for checkpoint in list_checkpoints(run):
            is_newest = checkpoint == newest
            name = str(found.begins_at) if is_newest else checkpoint.name
            _take_over(checkpoint, folder / "checkpoints" / name)
            if is_newest and name != checkpoint.name:
                _set_images_seen(folder / "checkpoints" / name, found.begins_at)
        for sample in (run / "samples").glob("[0-9]*.png"):
            link(sample, _made(folder / "samples") / sample.name)
        for name in _COPIED:
            if (run / name).is_file():
                shutil.copyfile(run / name, folder / name)
        config = found.config.model_dump(mode="json")
        RUN.write_json(folder / "config.json", {**settings, "config": config})


def _take_over(checkpoint: Path, target: Path) -> None:
    for file in checkpoint.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(checkpoint)
            link(file, _made(place.parent) / place.name)


def _set_images_seen(checkpoint: Path, images_seen: int) -> None:
    """Sets the counter back to where a step of the longer run begins."""
    state = RUN.read_json(checkpoint / "state.json")
    RUN.write_json(checkpoint / "state.json", {**state, "images_seen": images_seen})
    (checkpoint / CHECKSUMS).unlink(missing_ok=True)
    write_checksums(checkpoint)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
