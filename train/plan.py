"""What a training run would do: counts, buckets and steps, from file headers alone. Writes nothing, needs no torch."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.buckets import Size, upscale_factor
from dreamloom.train.data.dataset import Dataset, Problem, Sample, read_dataset, summarize_problems
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.model.memory import estimate_memory


@dataclass(frozen=True)
class FolderPlan:
    """What an epoch takes from one folder."""

    name: str
    pictures: int
    multiply: Fraction
    an_epoch: Fraction
    """Pictures an epoch, on average: the sum of their multiplies. Each epoch deals the whole part, and what ran up."""


@dataclass(frozen=True)
class BucketPlan:
    """What the first epoch takes from one bucket."""

    size: Size
    pictures: int
    batches: int
    filled: int
    """Places in its last batch that no dealt image takes."""


@dataclass(frozen=True)
class Plan:
    """A training run, before it is run."""

    folders: tuple[FolderPlan, ...]
    buckets: tuple[BucketPlan, ...]
    captions: tuple[tuple[str, str], ...]
    """Picture and caption of all that take part."""
    problems: tuple[Problem, ...]
    """Pictures that do not take part, and why."""
    enlarged: int
    """Pictures smaller than their bucket."""
    batches_first_epoch: int
    epochs: int
    images: int
    """Pictures shown in the whole run."""
    filled: int
    """Of these, fillings."""
    steps: int
    """Optimizer steps of the whole run."""
    seconds: float | None
    """At the rate given; none was: none."""
    memory: int | None
    """Bytes of a GPU that it takes, by estimate (train.model.memory); None where the base is not on this machine."""
    preset: str | None
    """The config's."""

    @property
    def notes(self) -> list[str]:
        """What the user should know of, in sentences."""
        scarce = [bucket for bucket in self.buckets if bucket.filled > bucket.pictures]
        notes = (
            [f"{len(self.problems):,} would take no part: {summarize_problems(self.problems, 10)}."]
            if self.problems
            else []
        )
        if self.enlarged:
            notes.append(f"{self.enlarged:,} would be enlarged, to fill a bucket that is larger; see upscale.")
        notes += [
            f"The bucket {bucket.size[0]}×{bucket.size[1]} has too few images ({bucket.pictures}) for its batch, so "
            f"they are repeated in {bucket.filled} places; add images of that shape, or lower batch_size."
            for bucket in scarce
        ]
        if self.memory and self.preset and self.memory > int(self.preset.removesuffix("gb")) * 2**30:
            notes.append(f"That is more than a GPU of {self.preset} has: take back some of what was set beside it.")
        return notes


def plan(folder: Path, config: TrainConfig, images_per_second: float | None = None) -> Plan:
    """Says what training on `folder` would do.

    Args:
        images_per_second: the speed measured on this machine, for an estimate of the time.

    Raises:
        UserError: the folder can't be trained on.
    """
    dataset = read_dataset(folder, config.resolution, config.bucket_reso_steps, config.num_workers, config.upscale)
    course = BatchSchedule(dataset, config)
    return Plan(
        folders=_folders(dataset),
        buckets=_buckets(dataset, course),
        captions=tuple((sample.name, sample.caption) for sample in dataset.samples),
        problems=dataset.problems,
        enlarged=sum(upscale_factor(sample.size, sample.bucket) > 1 for sample in dataset.samples),
        batches_first_epoch=course.epoch_ends[0],
        epochs=len(course.epoch_ends),
        images=course.num_images,
        filled=course.num_filled,
        steps=course.num_steps,
        seconds=course.num_images / images_per_second if images_per_second else None,
        memory=needed.total if (needed := estimate_memory(config)) else None,
        preset=config.preset,
    )


def _folders(dataset: Dataset) -> tuple[FolderPlan, ...]:
    members: dict[int, list[Sample]] = defaultdict(list)
    for sample in dataset.samples:
        members[sample.folder_index].append(sample)
    return tuple(
        FolderPlan(folder.name, len(here), folder.multiply, sum((s.settings.multiply for s in here), Fraction(0)))
        for place, folder in enumerate(dataset.folders)
        if (here := members[place])
    )


def _buckets(dataset: Dataset, course: BatchSchedule) -> tuple[BucketPlan, ...]:
    first = course.epoch_batches(0)
    members = Counter(sample.bucket for sample in dataset.samples)
    return tuple(
        BucketPlan(
            size,
            members[size],
            sum(batch.bucket == size for batch in first),
            sum(batch.num_filled for batch in first if batch.bucket == size),
        )
        for size in course.buckets
    )
