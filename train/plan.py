"""Plans a training run: counts, buckets and steps, from file headers alone. Writes nothing and needs no torch."""

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from dreamloom.base.images.buckets import Size, upscale_factor
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset, Problem, summarize_problems
from dreamloom.train.data.schedule import MANY_FORWARD_PASSES, BatchSchedule, mixed_batches_note
from dreamloom.train.evaluate.datasets import MUCH_MEASURED, measured_note, measured_share, read_datasets
from dreamloom.train.evaluate.prompts import check_prompts
from dreamloom.train.families.base_notes import base_notes
from dreamloom.train.families.check import check_models
from dreamloom.train.families.memory import estimate_memory
from dreamloom.train.families.suit import resolve_models
from dreamloom.train.run.idle_settings import idle_notes


@dataclass(frozen=True)
class FolderPlan:
    """What an epoch takes from one folder."""

    name: str
    images: int
    """Images in the folder."""
    multiply: Fraction
    images_per_epoch: Fraction
    """Average number of images per epoch: the sum of their multiplies. Fractions carry over to later epochs."""
    share_asked: float
    """Share of all images shown that `images_per_epoch` asks for."""
    shown: int
    """Images that the run shows of it, each as often as it is shown."""
    share_shown: float
    """Share of all images shown that these are."""


@dataclass(frozen=True)
class BucketPlan:
    """What the first epoch takes from one bucket."""

    size: Size
    images: int
    """Images in the bucket."""
    batches: int
    """Whole batches of it."""
    mixed: int
    """Images left over, which share batches with other buckets in smaller forward passes."""


@dataclass(frozen=True)
class Plan:
    """A training run, before it is run."""

    folders: tuple[FolderPlan, ...]
    buckets: tuple[BucketPlan, ...]
    captions: tuple[tuple[str, str], ...]
    """Name and caption of each image that takes part; several pairs, where it has several captions."""
    problems: tuple[Problem, ...]
    """Images that take no part, and why."""
    oddities: tuple[str, ...]
    """What is odd about the folder or the base and stops nothing, in sentences."""
    enlarged: int
    """Images smaller than their bucket."""
    auto_ratio: bool
    """Whether the run moves the share of ground truth, so that it shows other counts than the folder gives."""
    masked: int
    """Images whose loss is weighed by a mask."""
    epochs: int
    """Epochs begun."""
    total_images: int
    """Images shown in the whole run, counting repeats."""
    measured: float
    """Estimated share of the run that its evaluations take (dreamloom.train.evaluate.datasets.measured_share)."""
    forward_passes: float
    """Forward passes per `batch_size` images: above 1 where buckets leave too few images for whole batches."""
    steps: int
    """Optimizer steps of the whole run."""
    seconds: float | None
    """Duration at the speed given; None if none was given."""
    memory: int | None
    """Estimated GPU memory in bytes (dreamloom.train.families.memory); None if the base is not on this machine."""
    memory_use: str | None
    """It in words, with what takes most of it."""
    preset: str | None
    """The config's preset."""

    @property
    def notes(self) -> list[str]:
        """What the user should know of, in sentences."""
        notes = []
        if self.problems:
            notes.append(f"{len(self.problems):,} would take no part: {summarize_problems(self.problems, 10)}.")
        notes += self.oddities
        if self.enlarged:
            notes.append(f"{self.enlarged:,} would be enlarged to fill a larger bucket; see upscale.")
        if self.auto_ratio:
            notes.append("The share of ground truth would move at each evaluation; the counts are those of the folder.")
        if self.masked:
            notes.append(f"{self.masked:,} have a mask, by which their loss is weighed; see masks.")
        if self.forward_passes >= MANY_FORWARD_PASSES:
            notes.append(mixed_batches_note(self.forward_passes))
        if self.measured > MUCH_MEASURED:
            notes.append(measured_note(self.measured))
        if self.memory and self.preset and self.memory > int(self.preset.removesuffix("gb")) * 2**30:
            notes.append(
                f"That is more than a GPU of {self.preset} has; remove some of the settings beside the preset."
            )
        return notes


def plan(
    folder: Path, config: TrainConfig, images_per_second: float | None = None, heldout: Path | None = None
) -> Plan:
    """Computes what training on a folder would do.

    Args:
        folder: the training folder.
        config: the run's.
        images_per_second: speed measured on this machine, to estimate the duration.
        heldout: the folder of held-out images.

    Raises:
        UserError: the folder or the models can't be trained on.
    """
    config = resolve_models(config, may_download=True)
    check_models(config, may_download=True)
    check_prompts(config)
    dataset, held = read_datasets(folder, heldout, config)
    schedule = BatchSchedule(dataset, config)
    memory = estimate_memory(config)
    return Plan(
        folders=_plan_folders(dataset, schedule),
        buckets=_plan_buckets(dataset, schedule),
        captions=tuple((sample.name, each.caption) for sample in dataset.samples for each in sample.image.captions),
        problems=dataset.problems,
        oddities=(*dataset.notes, *base_notes(config.base), *idle_notes(config, schedule.num_images)),
        enlarged=sum(upscale_factor(sample.size, sample.bucket) > 1 for sample in dataset.samples),
        auto_ratio=config.auto_ratio,
        masked=sum(sample.mask is not None for sample in dataset.samples),
        epochs=len(schedule.epoch_ends),
        total_images=schedule.num_images,
        measured=measured_share(held, schedule, config),
        forward_passes=schedule.mean_forward_passes(),
        steps=schedule.num_steps,
        seconds=schedule.num_images / images_per_second if images_per_second else None,
        memory=memory.total if memory else None,
        memory_use=memory.describe() if memory else None,
        preset=config.preset,
    )


def _plan_folders(dataset: Dataset, schedule: BatchSchedule) -> tuple[FolderPlan, ...]:
    images = Counter(sample.folder_index for sample in dataset.samples)
    counts = schedule.images_by_folder()
    per_epoch = sum((asked for asked, _ in counts.values()), Fraction(0))
    return tuple(
        FolderPlan(
            name=dataset.folders[index].name,
            images=images[index],
            multiply=dataset.folders[index].multiply,
            images_per_epoch=asked,
            share_asked=float(asked / per_epoch),
            shown=shown,
            share_shown=shown / schedule.num_images,
        )
        for index, (asked, shown) in sorted(counts.items())
    )


def _plan_buckets(dataset: Dataset, schedule: BatchSchedule) -> tuple[BucketPlan, ...]:
    images = Counter(sample.bucket for sample in dataset.samples)
    epoch = schedule.count_epoch(0)
    return tuple(BucketPlan(size, images[size], *epoch[size]) for size in schedule.buckets)
