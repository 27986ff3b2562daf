"""Reads what a run trains on, and what it is measured by."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.images.buckets import read_folder_resolutions
from dreamloom.base.progress import Progress, silent
from dreamloom.base.text import name_some
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import check_words
from dreamloom.train.data.dataset import Dataset, find_ground_truth, read_dataset
from dreamloom.train.data.ratio import with_ratio
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.data.split import hold_out
from dreamloom.train.evaluate.evaluate import read_heldout
from dreamloom.train.evaluate.statistics import MIN_UNITS
from dreamloom.train.settings.run import early_steps, steps_between

MUCH_MEASURED = 0.05
"""Share of a run's computation from which on it is told that evaluations take it."""


def read_datasets(
    folder: Path, heldout: Path | None, config: TrainConfig, progress: Progress = silent
) -> tuple[Dataset, dict[str, Dataset]]:
    """Reads a training folder and the held-out images; where none are given, splits the folder if the config says so.

    Args:
        folder: the training folder.
        heldout: the folder of held-out images; None: there is none.
        config: the run's.
        progress: called with the images read.

    Returns:
        What is trained on, with a note if some of it is held out, too; and what is held out, by kind.

    Raises:
        UserError: a folder can't be read, nothing is left to train on, or nothing measures what the config limits.
    """
    settings = (config.resolution, config.bucket_reso_steps, config.num_workers, config.upscale)
    sides = read_folder_resolutions(config.folder_resolutions)
    dataset = read_dataset(
        folder, *settings, progress, config.masks, config.kohya_repeats, sides, config.shard_cache_gb
    )
    names = [f"{each.name}/" for each in dataset.folders]
    if unknown := [name for name in sides if not any(each.startswith(f"{name}/") for each in names)]:
        raise UserError(
            f"folder_resolutions: {unknown[0]} is no folder of the training folder; it has "
            f"{', '.join(each.name for each in dataset.folders)}."
        )
    check_words(dataset, config)
    ground_truth = find_ground_truth(dataset, config)
    held = read_heldout(heldout, *settings, config.masks, sides, config.shard_cache_gb)
    if config.held_out and heldout is not None:
        note = f"held_out is set and changes nothing, as {heldout} is held out."
        dataset = replace(dataset, notes=(*dataset.notes, note))
    elif config.held_out:
        dataset, chosen = hold_out(dataset, config.held_out, config.seed, progress)
        held = _by_kind(chosen, ground_truth) if chosen else {}
    dataset = with_ratio(dataset, ground_truth, config.ground_truth_ratio)
    _check_limits(config, held)
    return _with_overlap_note(dataset, held), held


def measured_share(held: Mapping[str, Dataset], schedule: BatchSchedule, config: TrainConfig) -> float:
    """Estimates which share of a run's computation its evaluations are, without the images that a CLIP judges by.

    An image that is trained on costs as much as three forward passes (Kaplan et al. 2020, arXiv 2001.08361), a held-out
    image one at each of `eval_timesteps`.
    """
    every = steps_between(config.evaluate_every_n_steps, schedule.planned_steps)
    evaluations = 1 + (ceil(schedule.num_steps / every) if every else 1)
    evaluations += len(early_steps(every)) if config.auto_ratio else 0
    passes = evaluations * config.eval_timesteps * sum(len(images.samples) for images in held.values())
    return passes / (passes + 3 * schedule.num_images)


def measured_note(share: float) -> str:
    """Tells that evaluations take much of a run's time, and how to mend it."""
    return (
        f"Measuring what is learned and forgotten takes about {100 * share:.0f} % of the time; a greater "
        "evaluate_every_n_steps, fewer eval_timesteps or fewer held-out images make it less."
    )


def _check_limits(config: TrainConfig, held: Mapping[str, Dataset]) -> None:
    """Checks that there are images to measure what the config limits or asks for.

    Raises:
        UserError: there are none.
    """
    remedy = "name a folder of held-out images, or set held_out and ground_truth"
    known = [len(held[kind].samples) for kind in ("ground_truth", "witness") if kind in held]
    if config.limit_mean is not None and not known:
        raise UserError(f"limit_mean needs held-out ground truth, to measure what is forgotten; {remedy}.")
    if config.limit_worst is not None and max(known, default=0) < MIN_UNITS:
        raise UserError(f"limit_worst needs {MIN_UNITS} or more held-out images of ground truth; {remedy}.")
    for name in ("patience", "likeness_clip"):
        if getattr(config, name) and "training" not in held:
            raise UserError(f"{name} needs held-out training images, to measure what is learned; {remedy}.")


def _by_kind(held: Dataset, ground_truth: set[int]) -> dict[str, Dataset]:
    kinds = {"training": False, "ground_truth": True}
    samples = {
        kind: tuple(sample for sample in held.samples if (sample.folder_index in ground_truth) == is_ground_truth)
        for kind, is_ground_truth in kinds.items()
    }
    return {kind: replace(held, samples=chosen) for kind, chosen in samples.items() if chosen}


def _with_overlap_note(dataset: Dataset, held: Mapping[str, Dataset]) -> Dataset:
    if not held:
        return dataset
    for each in (dataset, *held.values()):
        each.contents.learn(sample.image.source for sample in each.samples)
    trained = {dataset.contents.get(sample.image.source) for sample in dataset.samples} - {None}
    both = [
        f"{kind}/{sample.name}"
        for kind, images in held.items()
        for sample in images.samples
        if images.contents.get(sample.image.source) in trained
    ]
    if not both:
        return dataset
    note = (
        f"{len(both):,} held-out images are trained on, too ({name_some(both)}), so that they measure what was "
        "memorized; remove them from one of the two folders."
    )
    return replace(dataset, notes=(*dataset.notes, note))
