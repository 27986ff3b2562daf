"""The batches of a run: images of one bucket each, in an order that depends on the seed only."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.buckets import Size
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.data.sampler import FolderSampler, SampleIds, sample_epoch
from dreamloom.train.diffusion.rng import permutation, stream_key


@dataclass(frozen=True)
class Batch:
    """Images that go through the model together: of one bucket, and of one batch_id."""

    bucket: Size
    sample_ids: tuple[int, ...]
    """Places in the dataset; the last `num_filled` of them were not sampled for the epoch, but fill the batch up."""
    batch_id: str
    num_filled: int
    first_index: int
    """The run's index of its first image: the images seen before it. The other images follow."""


class BatchSchedule:
    """All batches of a run. One number says where a run stands, the images seen; any batch can be computed any time.

    Args:
        dataset: what is trained on.
        config: the run's; of it count batch size, accumulation, epochs, steps and seed.

    Raises:
        UserError: the run would show no image at all.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        """Groups the dataset's samples by bucket and batch_id, and counts the batches."""
        self.batch_size = config.batch_size
        self.seed = config.seed
        self.epochs = config.epochs
        self.gradient_accumulation_steps = config.gradient_accumulation_steps
        self.max_train_steps = config.max_train_steps
        self.samplers = make_samplers(dataset)
        self.groups = sorted({_group(sample) for sample in dataset.samples})
        numbers = {group: number for number, group in enumerate(self.groups)}
        self.group_of = np.array([numbers[_group(sample)] for sample in dataset.samples], np.int64)
        if not self.num_batches:
            raise UserError(f"The multiplies are so small that {self.epochs} epochs show nothing; raise one of them.")

    @property
    def buckets(self) -> list[Size]:
        """The buckets that hold images, each once."""
        return sorted({bucket for bucket, _ in self.groups})

    @cached_property
    def epoch_ends(self) -> list[int]:
        """For each epoch that begins, the batches of the run up to its end; max_train_steps may cut the last short."""
        whole = all(sampler.multiply.denominator == 1 for sampler in self.samplers)  # then all epochs are of one length
        ends: list[int] = []
        count = 0
        for epoch in range(self.epochs):
            count = count if ends and whole else self._count_batches(epoch)
            ends.append(count + (ends[-1] if ends else 0))
            if self._max_batches is not None and ends[-1] >= self._max_batches:
                break
        return ends

    @property
    def num_batches(self) -> int:
        """Batches of the whole run."""
        return self.epoch_ends[-1] if self._max_batches is None else min(self.epoch_ends[-1], self._max_batches)

    @property
    def num_images(self) -> int:
        """Images shown in the whole run, including those that fill batches up."""
        return self.num_batches * self.batch_size

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run; the last may have fewer batches than the others."""
        return -(-self.num_batches // self.gradient_accumulation_steps)

    @property
    def num_filled(self) -> int:
        """Images of the whole run that only fill batches up."""
        last = len(self.epoch_ends) - 1
        before = self.epoch_ends[last - 1] if last else 0
        sampled = sum(sampler.epoch_span(last - 1)[1] for sampler in self.samplers) if last else 0
        filled_in_last = sum(batch.num_filled for batch in self.epoch_batches(last)[: self.num_batches - before])
        return before * self.batch_size - sampled + filled_in_last

    def epoch_batches(self, epoch: int) -> list[Batch]:
        """Computes all batches of an epoch, in order, even where max_train_steps cuts the epoch short."""
        sample_ids = sample_epoch(self.samplers, self.seed, epoch)
        batches = [batch for number in range(len(self.groups)) for batch in self._of_group(number, sample_ids, epoch)]
        before = self.epoch_ends[epoch - 1] if epoch else 0
        order = permutation(stream_key(self.seed, "batches", epoch), len(batches)).tolist()
        batches = [batches[place] for place in order]
        if (steps := self.gradient_accumulation_steps) > 1:
            batches = pack_batch_ids(batches, -before % steps, steps, stream_key(self.seed, "steps", epoch))
        return [
            replace(batch, first_index=number * self.batch_size) for number, batch in enumerate(batches, start=before)
        ]

    def batches_after(self, images_seen: int) -> Iterator[Batch]:
        """Computes the batches that are left after so many images."""
        done = images_seen // self.batch_size
        for epoch in range(bisect_right(self.epoch_ends, done), len(self.epoch_ends)):
            for batch in self.epoch_batches(epoch):
                if done * self.batch_size <= batch.first_index < self.num_images:
                    yield batch

    @property
    def _max_batches(self) -> int | None:
        return self.max_train_steps * self.gradient_accumulation_steps if self.max_train_steps else None

    def _count_batches(self, epoch: int) -> int:
        sample_ids = np.concatenate([sampler.sample_epoch(self.seed, epoch) for sampler in self.samplers])
        counts = np.bincount(self.group_of[sample_ids], minlength=len(self.groups))
        return int(np.sum(-(-counts // self.batch_size)))

    def _of_group(self, number: int, sample_ids: SampleIds, epoch: int) -> Iterator[Batch]:
        """The batches of a group, without their first_index."""
        bucket, batch_id = self.groups[number]
        sampled = sample_ids[self.group_of[sample_ids] == number]
        short = -len(sampled) % self.batch_size
        filled = np.concatenate([sampled, self._filling(number, sampled, short, epoch)])
        for start in range(0, len(filled), self.batch_size):
            num_filled = max(0, start + self.batch_size - len(sampled))
            members = tuple(filled[start : start + self.batch_size].tolist())
            yield Batch(bucket, members, batch_id, num_filled, first_index=0)

    def _filling(self, number: int, sampled: SampleIds, count: int, epoch: int) -> SampleIds:
        """Images of a group to fill its last batch: first those not in the epoch, then those not in that batch."""
        if not count:
            return np.empty(0, np.int64)
        members = np.flatnonzero(self.group_of == number)
        members = members[permutation(stream_key(self.seed, "fill", epoch, number), len(members))]
        in_last_batch = sampled[len(sampled) // self.batch_size * self.batch_size :]
        rank = np.isin(members, sampled).astype(int) + np.isin(members, in_last_batch)
        ordered = members[np.argsort(rank, kind="stable")]
        return np.resize(ordered, count)


def pack_batch_ids(batches: Sequence[Batch], begin: int, steps: int, key: int) -> list[Batch]:
    """Reorders batches so that those of one batch_id share optimizer steps, as far as there are enough of them.

    Args:
        batches: in their order.
        begin: the first place at which an optimizer step begins.
        steps: batches per optimizer step.
        key: names the choice of the optimizer steps that are filled with one batch_id.
    """
    begins = range(begin, len(batches) - steps + 1, steps)
    by_id: dict[str, list[int]] = defaultdict(list)
    for number, batch in enumerate(batches):
        if batch.batch_id:
            by_id[batch.batch_id].append(number)
    runs = [
        numbers[start : start + steps]
        for numbers in by_id.values()
        for start in range(0, len(numbers) - steps + 1, steps)
    ]
    placed: dict[int, int] = {}
    for place, run in zip(permutation(key, len(begins)), runs, strict=False):
        placed |= enumerate(run, start=begins[place])
    packed = set(placed.values())
    others = (number for number in range(len(batches)) if number not in packed)
    return [batches[placed[place] if place in placed else next(others)] for place in range(len(batches))]


def make_samplers(dataset: Dataset) -> list[FolderSampler]:
    """Makes a sampler per folder, and one more for each multiply that images of a folder have for themselves."""
    sample_ids: dict[tuple[int, Fraction], list[int]] = defaultdict(list)
    for place, sample in enumerate(dataset.samples):
        sample_ids[sample.folder_index, sample.settings.multiply].append(place)
    samplers = []
    for (folder_index, multiply), members in sorted(sample_ids.items()):
        folder = dataset.folders[folder_index]
        name = folder.name if multiply == folder.multiply else f"{folder.name}\0{multiply}"
        samplers.append(FolderSampler(name, tuple(members), multiply))
    return samplers


def _group(sample: Sample) -> tuple[Size, str]:
    return sample.bucket, sample.settings.batch_id
