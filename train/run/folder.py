"""Reads and writes a run's folder: what it was made from, what it logged, and how it ended.

<run>/config.json              the config as used, the folders, and the recipe of all of them
      images.parquet           the images that it is trained on (dreamloom.train.run.contents)
      environments.json        torch's version, threads and device, at the start and where they changed
      checkpoints/             dreamloom.train.run.checkpoint
      models/                  each checkpoint as one file, if asked for
      log.jsonl                one line per optimizer step
      logs/                    the same for TensorBoard, with speed
      evaluation.json          dreamloom.train.loop.history
      learned_forgotten.png    the same as a chart
      samples/                 dreamloom.train.evaluate.sample_files
      samples.png              the same in one image, a row for each point
      problems.json            images that took no part, and why
      summary.json             written last: a run that has it is finished
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_text
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.files.remote import address_of
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import recipe, recipe_fields
from dreamloom.base.tables.held_out import to_json
from dreamloom.base.text import is_utf8
from dreamloom.base.versions import RUN, known_fields, rename_keys
from dreamloom.train.config import TrainConfig
from dreamloom.train.run import migrations
from dreamloom.train.run.moved import relocated

if TYPE_CHECKING:
    from dreamloom.train.data.dataset import Dataset

VERSION = 4
"""Raised when the same config and folders would give other weights."""
_UNBEGUN = ("logs", "problems.json", "environments.json")
"""What a start that failed may leave behind; a run begins with config.json."""


@dataclass(frozen=True)
class TrainSummary:
    """What a call of train did."""

    finished: bool
    """False: it was asked to stop, saved its state, and resumes when it is called again."""
    dataset_images: int
    """Images of the training folder that took part."""
    problems: int
    """Images that took no part; problems.json names them."""
    images_seen: int = 0
    """Images shown so far, counting repeats."""
    total_images: int = 0
    """Images to be shown in the whole run."""
    steps: int = 0
    """Optimizer steps so far."""
    learned: float | None = None
    """1 − loss/base loss on held-out training images; None if there are none."""
    learned_error: float | None = None
    """Its standard error."""
    forgotten: float | None = None
    """loss/base loss − 1 on held-out ground truth."""
    forgotten_error: float | None = None
    """Its standard error."""
    forgotten_unrehearsed: float | None = None
    """The same on witnesses, of which nothing is trained on."""
    forgotten_unrehearsed_error: float | None = None
    """Its standard error."""
    verdict: str = ""
    """What was forgotten worst, in a sentence; empty if nothing measures it."""
    likeness: float | None = None
    """By which share what is drawn came nearer to held-out training images; None if no CLIP compares them."""
    limits: str = ""
    """Which checkpoint is kept, and whether it is within the limits; empty without limits."""
    ended: str = ""
    """Why the run ended before it had shown all its images; empty if it did not."""
    asked: dict[str, float] = field(default_factory=dict)
    """Share of the images shown that was asked for, by folder."""
    shown: dict[str, int] = field(default_factory=dict)
    """Images that the whole run shows, each as often as it is shown, by folder; of one that ended early, up to then."""
    checkpoint: str | None = None
    """The newest checkpoint."""
    drawn: list[str] = field(default_factory=list)
    """Prompts that this call drew, as they are new in the config of a finished run."""
    images_per_second: float | None = None
    """Speed of this call's steps, without evaluation, samples and checkpoints."""
    data_wait: float | None = None
    """Share of their time spent waiting for data."""
    peak_memory: int | None = None
    """Most bytes in use at once: of the GPU's memory, or of the process if there is no GPU."""


def run_recipe(
    dataset: "Dataset", heldout: "Mapping[str, Dataset]", config: TrainConfig, progress: Progress = silent
) -> str:
    """Returns the recipe of a run, from everything that its result depends on: the bytes of the images, too."""
    digests = [dataset.digest(progress), *(f"{kind} {images.digest()}" for kind, images in sorted(heldout.items()))]
    if config.needs_concepts:
        known = [images.held_out for images in heldout.values() if images.held_out is not None]  # else: from captions
        digests += sorted({str(sorted(to_json(each).items())) for each in known})
    return train_recipe(config, digests)


def warm_recipe(recipe: str, continued: Mapping[str, Any] | None) -> str:
    """Returns the recipe of a run that goes on from another one (see dreamloom.train.loop.continuing).

    Args:
        recipe: of a run that does not.
        continued: what config.json says of it; None or without a reason, it ends with the same bits.
    """
    if not continued or not continued["reason"]:
        return recipe
    parts = f"{recipe} {continued['recipe']} {continued['images_seen']}"
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def train_recipe(config: TrainConfig, upstream: Sequence[str]) -> str:
    """Returns the recipe of training with a config.

    Args:
        config: its models count by their content.
        upstream: digests of the images that are trained on.
    """
    others = {"vae": config.vae, "likeness_clip": config.likeness_clip, "init_lora": config.init_lora}
    models = {"base": fingerprint(config.base)} | {role: fingerprint(name) for role, name in others.items() if name}
    return recipe("train", VERSION, config, upstream, models)


class OtherRun(UserError):
    """A run folder holds a run of another recipe."""


def check_run_folder(run: Path, recipe: str, config: TrainConfig) -> None:
    """Checks that a run folder is new, or holds the run of this recipe.

    Raises:
        OtherRun: it holds another run.
        UserError: it holds something that is not a run; or its path is not UTF-8.
    """
    if not is_utf8(str(run)):  # TensorBoard and safetensors can't open such a path
        raise UserError(f"The path {run} is not UTF-8; name another folder for the run.")
    stored = read_settings(run)
    if not stored:
        if run.exists() and any(entry.name not in _UNBEGUN and entry.name[0] != "." for entry in run.iterdir()):
            raise UserError(f"{run} holds something that is not a training run; name a new folder for the run.")
        return
    if stored["recipe"] == recipe:
        return
    before, now = stored["config"], config.model_dump(mode="json")
    fields = [name for name in now if name in recipe_fields(TrainConfig)]
    changed = [name for name in fields if name in before and before[name] != now[name]]
    listed = ", ".join(f"{name} {before[name]} instead of {now[name]}" for name in changed)
    is_old = stored.get("schema") is None or any(name not in before for name in fields)
    old = "an older release of dreamloom" if is_old else "other images, captions, concepts or models"
    difference = f"another config ({listed})" if changed else old
    raise OtherRun(f"{run} was made with {difference}; name a new folder for this run.")


def has_begun(run: Path) -> bool:
    """Tells whether a run began in a folder, so that it belongs to that run."""
    return (run / "config.json").exists()


def discard_unbegun(run: Path) -> None:
    """Removes the folder of a run that never began, unless there is more in it than its lock."""
    if run.is_dir() and all(entry.name == ".lock" for entry in run.iterdir()):
        (run / ".lock").unlink(missing_ok=True)
        run.rmdir()


def write_settings(
    run: Path,
    recipe: str,
    folder: Path,
    heldout: Path | None,
    config: TrainConfig,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Writes what the run is made from to config.json; fields outside the recipe are brought up to date.

    Args:
        run: the run's folder.
        recipe: the run's.
        folder: the training folder.
        heldout: the folder of held-out images.
        config: the run's.
        data: what each folder holds (dreamloom.train.run.contents.to_json); None: not known.
    """
    before = read_settings(run)
    places = {"folder": _written(folder), "heldout": heldout and _written(heldout)}
    settings = {"recipe": recipe, **places, "config": config.model_dump(mode="json")}
    settings["models"] = {"base": fingerprint(config.base)}
    settings["began"] = before.get("began") or time.strftime("%Y-%m-%dT%H:%M:%S")
    kept = {name: before[name] for name in ("continued",) if name in before}
    RUN.write_json(run / "config.json", {**settings, "data": data, **kept})


def _written(folder: Path) -> str:
    return address_of(folder) or str(folder.expanduser().absolute())


def read_settings(run: Path) -> dict[str, Any]:
    """Reads what `write_settings` wrote; empty if the file is not there.

    The config of an older release has today's keys. `read_config` also leaves out what a newer one added.

    Raises:
        UserError: it can't be read, or a newer release wrote it in another way.
    """
    settings = _read_json(run / "config.json")
    if settings and settings.get("schema") is None:
        settings["config"] = rename_keys(settings["config"], migrations.CONFIG)
    return relocated(settings, run) if settings else settings


def read_config(run: Path) -> TrainConfig | None:
    """Reads the config of a run; None if its folder holds no config.json.

    Raises:
        UserError: it can't be read, or a newer release wrote it in another way.
    """
    settings = read_settings(run)
    return TrainConfig.model_validate(known_fields(TrainConfig, settings["config"])) if settings else None


def read_summary(run: Path) -> TrainSummary | None:
    """Reads the summary of a finished run; None if it is not finished."""
    stored = _read_json(run / "summary.json")
    if not stored:
        return None
    names = migrations.SUMMARY if stored.get("schema") is None else {}
    return TrainSummary(**known_fields(TrainSummary, rename_keys(stored, names)))


def write_summary(run: Path, summary: TrainSummary) -> None:
    """Writes the summary, which marks the run as finished."""
    RUN.write_json(run / "summary.json", asdict(summary))


def list_checkpoints(run: Path) -> list[Path]:
    """Returns a run's checkpoints, the oldest first."""
    return sorted((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))


def best_checkpoint(run: Path) -> Path | None:
    """Returns the checkpoint of the best measured point (see `best_point`), else the newest; None without any."""
    checkpoints = {int(path.name): path for path in list_checkpoints(run)}
    points = _read_json(run / "evaluation.json").get("points", [])
    best = best_point([point for point in points if point["images_seen"] in checkpoints])
    return checkpoints[max(checkpoints) if best is None else best] if checkpoints else None


def best_point(points: Sequence[Mapping[str, Any]]) -> int | None:
    """Returns the images seen at the best point of evaluation.json; None if nothing was measured after the start.

    In a run with limits, that is the one within them that learned most; without any, the one nearest to them. In
    others, it is the one where what was learned minus `forgotten` was the greatest; negative `forgotten` counts as 0.
    Of equal points the last is taken.
    """
    scores = [(_score(point), int(point["images_seen"])) for point in points if point["images_seen"]]
    return max(scores)[1] if scores else None


def _score(point: Mapping[str, Any]) -> tuple[float, float]:
    """Returns a point's rank among those of its run; `excess` is in points of runs with limits only."""
    learned = _learned(point)
    if "excess" in point:
        return -float(point["excess"]), learned
    return 0.0, learned - max(0.0, point["forgotten"]["change"] if point["forgotten"] else 0.0)


def _learned(point: Mapping[str, Any]) -> float:
    """Returns what a point has learned: by the loss; where images are judged, too, the mean of both changes."""
    by_loss = float(point["learned"]["change"]) if point["learned"] else 0.0
    likeness = point.get("likeness")
    return (by_loss + float(likeness["change"])) / 2 if likeness else by_loss


def truncate_log(run: Path, images_seen: int) -> None:
    """Removes from log.jsonl what a killed run logged after the checkpoint from which it resumes, and broken lines."""
    log = run / "log.jsonl"
    if not log.exists():
        return
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if (seen := _images_seen_at(line)) is not None and seen <= images_seen]
    commit_text(log, "".join(kept))


def _images_seen_at(line: str) -> int | None:
    """Returns the images seen at a line of log.jsonl; None where a kill or a power cut left no whole line."""
    try:
        return int(json.loads(line)["images_seen"]) if line.endswith("\n") else None
    except (ValueError, LookupError, TypeError):
        return None


def _read_json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return RUN.read_json(file)
    except ValueError as error:
        raise UserError(f"{file} can't be read ({error}); name a new folder for the run.") from error
