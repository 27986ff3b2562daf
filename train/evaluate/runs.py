"""Describes training runs by their folders, and how one differs from another. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.own_folders import own_folder_kind
from dreamloom.base.versions import RUN, known_fields, rename_keys
from dreamloom.train.evaluate.measure import MEASURES, GroupMeasure, Measure, set_label
from dreamloom.train.evaluate.sample_files import list_samples
from dreamloom.train.run import migrations
from dreamloom.train.run.contents import FolderContent, ImageContent, from_json, read_differing_images
from dreamloom.train.run.folder import TrainSummary, best_point, list_checkpoints, read_settings, read_summary

Changes = dict[str, tuple[Any, Any]]
"""Key of the config → its value before, and now; None where a run has no such key."""


@dataclass(frozen=True)
class RunInfo:
    """A training run, as its folder tells it."""

    folder: Path
    began: str
    """Time, in ISO 8601."""
    config: Mapping[str, Any]
    base: str | None
    """Fingerprint of the base model; None for runs of older releases."""
    data: Mapping[str, FolderContent] | None
    """What each folder held; None for runs of older releases."""
    summary: TrainSummary | None
    """None: the run is not finished."""
    best: Mapping[str, Any]
    """The best point of evaluation.json; empty where nothing was measured."""
    held_out: frozenset[str]
    """The images that it measures by."""
    images_seen: int
    """By the newest checkpoint, or at the end of a finished run."""
    continued: str | None
    """The run that it goes on from."""
    bytes: int

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def steps(self) -> int:
        """Optimizer steps so far."""
        step_size = self.config.get("batch_size", 1) * self.config.get("gradient_accumulation_steps", 1)
        return int(-(-self.images_seen // step_size))

    @property
    def measures(self) -> dict[str, Measure]:
        """What the best checkpoint learned and forgot, by the name that people see."""
        stored = {label: self.best.get(name) for name, label in MEASURES.items()}
        stored |= {set_label(name): measure for name, measure in self.best.get("sets", {}).items()}
        known = {label: rename_keys(each, migrations.MEASURE) for label, each in stored.items() if each}
        return {label: Measure(**known_fields(Measure, each)) for label, each in known.items()}

    @property
    def groups(self) -> dict[tuple[str, str, str], GroupMeasure]:
        """The same for each source and concept, by kind, grouping and name."""
        groups = [GroupMeasure(**known_fields(GroupMeasure, group)) for group in self.best.get("groups", ())]
        return {(group.kind, group.grouping, group.name): group for group in groups}


def find_runs(folder: Path) -> list[RunInfo]:
    """Describes the runs of a workspace or of any folder, the first one first; a run itself is the only one."""
    candidates = [folder] if own_folder_kind(folder) == "run" else [*folder.glob("runs/*"), *folder.glob("*")]
    runs = [describe_run(path) for path in candidates if path.is_dir() and own_folder_kind(path) == "run"]
    return sorted(runs, key=lambda run: (run.began, run.name))


def describe_run(run: Path) -> RunInfo:
    """Describes one run.

    Raises:
        UserError: a file of it can't be read, or a newer release wrote it in another way.
    """
    settings, summary, evaluation = read_settings(run), read_summary(run), _read_evaluation(run)
    points, checkpoints = evaluation.get("points", []), list_checkpoints(run)
    best = best_point(points)
    return RunInfo(
        folder=run,
        began=settings.get("began") or _time_of(run / "config.json"),
        config=settings["config"],
        base=settings.get("models", {}).get("base"),
        data=from_json(settings.get("data")),
        summary=summary,
        best=next((point for point in points if point["images_seen"] == best), {}),
        held_out=frozenset(f"{kind}/{name}" for kind, losses in evaluation.get("base", {}).items() for name in losses),
        images_seen=summary.images_seen if summary else int(checkpoints[-1].name) if checkpoints else 0,
        continued=settings.get("continued", {}).get("run"),
        bytes=sum(file.stat().st_size for file in run.rglob("*") if file.is_file()),
    )


def best_samples(run: RunInfo) -> Path | None:
    """Returns the samples of a run at its best point, else the newest ones; None without any."""
    files = {int(file.stem): file for file in list_samples(run.folder / "samples")}
    best = int(run.best.get("images_seen", -1))
    return files.get(best, files[max(files)]) if files else None


def config_changes(before: RunInfo, now: RunInfo) -> Changes:
    """Returns the keys of the config in which two runs differ."""
    names = [*now.config, *(name for name in before.config if name not in now.config)]
    values = {name: (before.config.get(name), now.config.get(name)) for name in names}
    changes = {name: pair for name, pair in values.items() if pair[0] != pair[1]}
    if before.base and now.base and before.base == now.base:
        changes.pop("base", None)  # the same model in another place
    elif before.base and now.base and "base" not in changes:
        changes["base"] = (f"{before.config['base']}, as it was", f"{now.config['base']}, changed since")
    return changes


def data_changes(before: RunInfo, now: RunInfo) -> list[str]:
    """Returns in what the images of two runs differ, a text for each folder and difference."""
    if before.data is None or now.data is None:
        return ["not known: an older release kept no list of images"]
    changes = [f"{name}: gone" for name in before.data if name not in now.data]
    for name, folder in now.data.items():
        old = before.data.get(name)
        if old is None:
            changes.append(f"{name}: new, {folder.images:,} images")
            continue
        if old.images != folder.images:
            changes.append(f"{name}: {folder.images:,} instead of {old.images:,} images")
        elif old.contents != folder.contents:
            changes.append(f"{name}: other images")
        elif old.captions != folder.captions:
            changes.append(f"{name}: other captions")
        if old.multiply != folder.multiply:
            now_and_before = (f"{float(Fraction(multiply)):.4g}" for multiply in (folder.multiply, old.multiply))
            changes.append(f"{name}: multiply {' instead of '.join(now_and_before)}")
    return changes


def image_changes(before: RunInfo, now: RunInfo) -> list[dict[str, str]]:
    """Returns a row for each image that one of two runs has alone, or with another caption; by content, not by name."""
    differing = read_differing_images(before.folder, now.folder)
    if differing is None:
        return []
    old, new = differing
    rows = [("gone", key) for key in old if key not in new] + [("new", key) for key in new if key not in old]
    rows += [("caption", key) for key in new if key in old and old[key].caption != new[key].caption]
    rows.sort(key=lambda row: row[1][0])  # by folder
    return [_image_row(what, new.get(key) or old[key], old[key] if what == "caption" else None) for what, key in rows]


def _image_row(what: str, image: ImageContent, before: ImageContent | None = None) -> dict[str, str]:
    return {"change": what, "image": image.name, "before": before.caption if before else "", "caption": image.caption}


def _read_evaluation(run: Path) -> dict[str, Any]:
    file = run / "evaluation.json"
    try:
        return RUN.read_json(file) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read ({error}); restore it, or move the run away.") from error


def _time_of(file: Path) -> str:
    return datetime.fromtimestamp(file.stat().st_mtime).strftime("%Y-%m-%dT%H:%M:%S")
