"""A run's folder: what it was made from, what it logged, how it ended.

<run>/config.json              the config as used, the folders, and the recipe that names them all
      checkpoints/             dreamloom.train.run.checkpoint
      log.jsonl                one line an optimizer step
      logs/                    the same for TensorBoard, with speed
      evaluation.json          dreamloom.train.evaluate.evaluate
      learned_forgotten.png    the same as a chart
      samples/                 dreamloom.train.evaluate.sample
      samples.png              the same in one image, a row for each point
      problems.json            images that took no part, and why
      summary.json             written last: a run that has it is finished
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit_json, commit_text, fingerprint
from dreamloom.base.stage import recipe, recipe_fields
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset

VERSION = 2
"""Raised when the same config and folders would give other weights."""


@dataclass(frozen=True)
class TrainSummary:
    """What a call of train did."""

    finished: bool
    """False: it was asked to stop, has saved its state, and goes on when it is called again."""
    pictures: int
    """Pictures of the training folder that took part."""
    problems: int
    """Pictures that took no part; problems.json names them."""
    images_seen: int = 0
    images: int = 0
    """To be seen in the whole run."""
    steps: int = 0
    """Optimizer steps so far."""
    learned: float | None = None
    """1 − loss/base loss on held-out training images; None where there are none."""
    learned_error: float | None = None
    """Its standard error."""
    forgotten: float | None = None
    """loss/base loss − 1 on held-out ground truth."""
    forgotten_error: float | None = None
    checkpoint: str | None = None
    """The newest."""
    images_per_second: float | None = None
    """Of the last call's steps, without evaluation, samples and checkpoints."""
    data_wait: float | None = None
    """Share of their time in which they waited for data."""
    peak_memory: int | None = None
    """The most bytes in use at once: of the GPU's memory, or of the process where there is none."""


def recipe_of(dataset: Dataset, heldout: dict[str, Dataset], config: TrainConfig) -> str:
    """Names a run by all that its result depends on."""
    models = {"base": fingerprint(config.base)} | ({"vae": fingerprint(config.vae)} if config.vae else {})
    digests = [dataset.digest(), *(f"{name} {kind.digest()}" for name, kind in sorted(heldout.items()))]
    return recipe("train", VERSION, config, digests, models)


def check_same(run: Path, made: str, config: TrainConfig) -> None:
    """Checks that a run folder is new, or is that of this very run.

    Raises:
        UserError: it belongs to another run, or is no run folder but holds something.
    """
    stored = read_settings(run)
    if not stored:
        if run.exists() and any(not entry.name.startswith(".") for entry in run.iterdir()):
            raise UserError(f"{run} holds something that is not a training run; name a new folder for the run.")
        return
    if stored["recipe"] == made:
        return
    before, now = stored["config"], config.model_dump(mode="json")
    changed = [name for name in now if name in recipe_fields(TrainConfig) and before.get(name) != now[name]]
    listed = ", ".join(f"{name} {before.get(name)} instead of {now[name]}" for name in changed)
    what = f"another config ({listed})" if changed else "other images, captions or models"
    raise UserError(f"{run} was made with {what}; name a new folder for this run.")


def write_settings(run: Path, made: str, folder: Path, heldout: Path | None, config: TrainConfig) -> None:
    """Notes what the run is made from; fields that may change are brought up to date."""
    settings = {"recipe": made, "folder": folder, "heldout": heldout, "config": config.model_dump(mode="json")}
    commit_json(run / "config.json", settings)


def read_settings(run: Path) -> dict[str, Any]:
    """What `write_settings` wrote; empty where it isn't there.

    Raises:
        UserError: it can't be read.
    """
    return _read(run / "config.json")


def read_summary(run: Path) -> TrainSummary | None:
    """The summary of a finished run; None where it isn't finished."""
    stored = _read(run / "summary.json")
    return TrainSummary(**stored) if stored else None


def write_summary(run: Path, summary: TrainSummary) -> None:
    """Marks the run as finished."""
    commit_json(run / "summary.json", asdict(summary))


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, the oldest first."""
    return sorted((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))


def best_checkpoint(run: Path) -> Path | None:
    """The checkpoint of the best measurement (see `best_point`), else the newest; None where there is none."""
    saved = {int(path.name): path for path in checkpoints(run)}
    points = _read(run / "evaluation.json").get("points", [])
    best = best_point([point for point in points if point["images_seen"] in saved])
    return saved[max(saved) if best is None else best] if saved else None


def best_point(points: Sequence[Mapping[str, Any]]) -> int | None:
    """The images seen at the point of evaluation.json where `learned` less `forgotten` was the greatest.

    Both are shares of the base model's loss. To forget less than nothing counts as nothing, and of equals the last is
    taken. None where nothing was measured after the start.
    """
    scores = [(_score(point), int(point["images_seen"])) for point in points if point["images_seen"]]
    return max(scores)[1] if scores else None


def _score(point: Mapping[str, Any]) -> float:
    learned = point["learned"]["change"] if point["learned"] else 0.0
    return float(learned - max(0.0, point["forgotten"]["change"] if point["forgotten"] else 0.0))


def cut_log(run: Path, images_seen: int) -> None:
    """Takes out of log.jsonl what a killed run logged after the checkpoint from which it goes on."""
    log = run / "log.jsonl"
    if not log.exists():
        return
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("}\n")]  # the last may have been cut by the kill
    kept = [line for line in whole if json.loads(line)["images_seen"] <= images_seen]
    commit_text(log, "".join(kept))


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{file} can't be read ({error}); name a new folder for the run.") from error
