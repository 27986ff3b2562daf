"""The batches of a run: images of one shape each, in an order that depends on nothing but the seed."""

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
    """Pictures that go through the model together: of one bucket, and of one batch_id."""

    bucket: Size
    sample_ids: tuple[int, ...]
    """Places in the data set; the last `filled` of them were not dealt, but fill the batch up."""
    batch_id: str
    num_filled: int
    first_index: int
    """The run's images seen before it: its images have the sample indices from here on."""


class BatchSchedule:
    """All batches of a run. Where a run stands is one number, the images seen; any batch can be had at any time.

    Raises:
        UserError: the run would show no image at all.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
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
        """Those that hold images, each once."""
        return sorted({bucket for bucket, _ in self.groups})

    @cached_property
    def epoch_ends(self) -> list[int]:
        """Batches of the run up to and with each epoch that is begun; the last may be broken off in the middle."""
        most = self.max_train_steps * self.gradient_accumulation_steps if self.max_train_steps else None
        whole = all(deck.multiply.denominator == 1 for deck in self.samplers)  # then all epochs deal the same cards
        ends: list[int] = []
        count = 0
        for epoch in range(self.epochs):
            count = count if ends and whole else self._count(epoch)
            ends.append(count + (ends[-1] if ends else 0))
            if most is not None and ends[-1] >= most:
                break
        return ends

    @property
    def num_batches(self) -> int:
        """Batches of the whole run."""
        return (
            min(self.epoch_ends[-1], self.max_train_steps * self.gradient_accumulation_steps)
            if self.max_train_steps
            else self.epoch_ends[-1]
        )

    @property
    def num_images(self) -> int:
        """Pictures shown in the whole run, fillings with them."""
        return self.num_batches * self.batch_size

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run; the last may have fewer batches than the others."""
        return -(-self.num_batches // self.gradient_accumulation_steps)

    @property
    def num_filled(self) -> int:
        """Places of the whole run that no dealt image takes."""
        last = len(self.epoch_ends) - 1
        before = self.epoch_ends[last - 1] if last else 0
        dealt = sum(deck.epoch_span(last - 1)[1] for deck in self.samplers) if last else 0
        broken_off = sum(batch.num_filled for batch in self.epoch_batches(last)[: self.num_batches - before])
        return before * self.batch_size - dealt + broken_off

    def epoch_batches(self, epoch: int) -> list[Batch]:
        """The batches of an epoch, with `first` counted from the start of the run."""
        dealt = sample_epoch(self.samplers, self.seed, epoch)
        made = [batch for number in range(len(self.groups)) for batch in self._of_group(number, dealt, epoch)]
        before = self.epoch_ends[epoch - 1] if epoch else 0
        shuffled = [made[place] for place in permutation(stream_key(self.seed, "batches", epoch), len(made)).tolist()]
        if self.gradient_accumulation_steps > 1:
            key = stream_key(self.seed, "steps", epoch)
            shuffled = pack_batch_ids(
                shuffled, -before % self.gradient_accumulation_steps, self.gradient_accumulation_steps, key
            )
        return [
            replace(batch, first_index=position * self.batch_size)
            for position, batch in enumerate(shuffled, start=before)
        ]

    def batches_after(self, images_seen: int) -> Iterator[Batch]:
        """The batches that are left when so many images have been seen."""
        done = images_seen // self.batch_size
        for epoch in range(bisect_right(self.epoch_ends, done), len(self.epoch_ends)):
            for batch in self.epoch_batches(epoch):
                if done * self.batch_size <= batch.first_index < self.num_images:
                    yield batch

    def _count(self, epoch: int) -> int:
        dealt = np.concatenate([deck.sample_epoch(self.seed, epoch) for deck in self.samplers])
        counts = np.bincount(self.group_of[dealt], minlength=len(self.groups))
        return int(np.sum(-(-counts // self.batch_size)))

    def _of_group(self, number: int, dealt: SampleIds, epoch: int) -> Iterator[Batch]:
        bucket, batch_id = self.groups[number]
        mine = dealt[self.group_of[dealt] == number]
        short = -len(mine) % self.batch_size
        filled = np.concatenate([mine, self._filling(number, mine, short, epoch)])
        for start in range(0, len(filled), self.batch_size):
            missing = max(0, start + self.batch_size - len(mine))
            members = tuple(filled[start : start + self.batch_size].tolist())
            yield Batch(bucket, members, batch_id, missing, first_index=0)

    def _filling(self, number: int, dealt: SampleIds, short: int, epoch: int) -> SampleIds:
        """`short` images of a group: those the epoch has not dealt first, then those not in the short batch."""
        if not short:
            return np.empty(0, np.int64)
        members = np.flatnonzero(self.group_of == number)
        members = members[permutation(stream_key(self.seed, "fill", epoch, number), len(members))]
        last = dealt[len(dealt) // self.batch_size * self.batch_size :]
        rank = np.isin(members, dealt).astype(int) + np.isin(members, last)
        ordered = members[np.argsort(rank, kind="stable")]
        return np.resize(ordered, short)


def pack_batch_ids(batches: Sequence[Batch], begin: int, each: int, key: int) -> list[Batch]:
    """The batches, `each` of one batch_id in a row where an optimizer step begins, as far as there are so many.

    Args:
        begin: the first place where a step begins; every `each` places another one does.
        key: names the steps that are chosen for it.
    """
    steps = range(begin, len(batches) - each + 1, each)
    by_id: dict[str, list[int]] = defaultdict(list)
    for number, batch in enumerate(batches):
        if batch.batch_id:
            by_id[batch.batch_id].append(number)
    runs = [found[start : start + each] for found in by_id.values() for start in range(0, len(found) - each + 1, each)]
    placed: dict[int, int] = {}
    for step, run in zip(permutation(key, len(steps)), runs, strict=False):
        placed |= enumerate(run, start=steps[step])
    packed = set(placed.values())
    others = (number for number in range(len(batches)) if number not in packed)
    return [batches[placed[place] if place in placed else next(others)] for place in range(len(batches))]


def make_samplers(dataset: Dataset) -> list[FolderSampler]:
    """A deck for each folder; one more for each multiply that images of a folder have for themselves."""
    cards: dict[tuple[int, Fraction], list[int]] = defaultdict(list)
    for place, sample in enumerate(dataset.samples):
        cards[sample.folder_index, sample.settings.multiply].append(place)
    made = []
    for (number, multiply), members in sorted(cards.items()):
        folder = dataset.folders[number]
        name = folder.name if multiply == folder.multiply else f"{folder.name}\0{multiply}"
        made.append(FolderSampler(name, tuple(members), multiply))
    return made


def _group(sample: Sample) -> tuple[Size, str]:
    return sample.bucket, sample.settings.batch_id
