"""Which images each optimizer step shows: a function of the seed only, so any step can be computed at any time.

The images of all epochs form one stream. An epoch adds exactly the images that its samplers choose, and every optimizer
step takes exactly `batch_size × gradient_accumulation_steps` images of the stream. So no image is repeated to fill a
batch, and none is left out; only the last step of a run may be smaller.

A forward pass takes images of one bucket. What is left of an epoch's buckets after the whole batches goes into mixed
slots: several smaller forward passes in the place of one batch, in which each image has the weight that it has in a
whole batch. A slot may span the border of two epochs.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import count as count_up
from itertools import groupby, islice
from typing import TypeVar

import numpy as np

from dreamloom.base.apportion import apportion
from dreamloom.base.errors import UserError
from dreamloom.base.images.buckets import Size
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.data.packing import Piece, count_images, fill_parts, pack_batch_ids
from dreamloom.train.data.sampler import SampleIds, make_samplers, sample_spans
from dreamloom.train.diffusion.rng import permutation, stream_key

_Number = TypeVar("_Number", int, Fraction)

MAX_EPOCHS = 100_000
"""Most epochs of a run, so that its images can be counted in a moment."""


@dataclass(frozen=True)
class Batch:
    """Images that go through the model in one forward pass: of one bucket, and of one batch_id."""

    bucket: Size
    batch_id: str
    sample_ids: tuple[int, ...]
    """Places in the dataset."""
    indices: tuple[int, ...]
    """The run's index of each image: the images seen before it. All randomness of an image derives from its index."""
    padding: int = 0
    """How many images at the end have no weight, and only keep the batch's shape."""

    def part(self, begin: int, end: int) -> "Batch":
        """Returns the images from one place to another."""
        return replace(self, sample_ids=self.sample_ids[begin:end], indices=self.indices[begin:end])

    def padded(self, size: int) -> "Batch":
        """Repeats the last image, without weight, until there are `size` of them."""
        more = size - len(self.sample_ids)
        sample_ids, indices = self.sample_ids[-1:] * more, self.indices[-1:] * more
        return replace(self, sample_ids=self.sample_ids + sample_ids, indices=self.indices + indices, padding=more)


Slot = tuple[Batch, ...]
"""`batch_size` images: one batch, or several smaller ones of different buckets. A run's last slot may hold fewer."""
Step = tuple[Slot, ...]
"""The `gradient_accumulation_steps` slots of an optimizer step. A run's last step may hold fewer."""


MANY_FORWARD_PASSES = 1.5
"""Forward passes per batch from which a run is told that rare shapes slow it down."""


class BatchSchedule:
    """All steps of a run. One number says where a run stands, the images seen; any step can be computed any time.

    Args:
        dataset: what is trained on.
        config: the run's; of it count batch size, accumulation, epochs, steps and seed.

    Raises:
        UserError: the run would show no image at all.
    """

    early_steps: tuple[int, ...] = ()
    """Steps after which the model is evaluated beside what the config says."""

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        """Groups the dataset's samples by bucket and batch_id, and counts the images of each epoch."""
        self.batch_size = config.batch_size
        self.step_size = config.batch_size * config.gradient_accumulation_steps
        self.seed = config.seed
        self.epochs = config.epochs
        self.max_images = config.max_train_steps * self.step_size if config.max_train_steps else None
        self.samplers = make_samplers(dataset)
        self.groups = sorted({_group(sample) for sample in dataset.samples})
        numbers = {group: number for number, group in enumerate(self.groups)}
        self.group_of = np.array([numbers[_group(sample)] for sample in dataset.samples], np.int64)
        self.folder_of = np.array([sample.folder_index for sample in dataset.samples], np.int64)
        per_epoch = sum(self.asked(), Fraction(0))
        if self.max_images is not None and self.max_images > MAX_EPOCHS * per_epoch:
            raise UserError(
                f"The multiplies are so small that {config.max_train_steps} steps take more than {MAX_EPOCHS:,} "
                "epochs; raise one of them, or lower max_train_steps."
            )
        if not self.num_images:
            raise UserError(f"The multiplies are so small that {self.epochs} epochs show nothing; raise one of them.")

    @property
    def buckets(self) -> list[Size]:
        """The buckets that hold images, each once."""
        return sorted({bucket for bucket, _ in self.groups})

    @cached_property
    def planned_ends(self) -> list[int]:
        """For each epoch that begins, the images of the run up to its end, as the folder gives them.

        max_train_steps decides where it is given, whatever `epochs` says, and may cut the last one short.
        """
        ends: list[int] = []
        for epoch in range(self.epochs) if self.max_images is None else count_up():
            ends.append(sum(sampler.epoch_span(epoch)[1] for sampler in self.samplers))
            if self.max_images is not None and ends[-1] >= self.max_images:
                ends[-1] = self.max_images
                break
        return ends

    @property
    def planned_steps(self) -> int:
        """Optimizer steps of the run as the folder gives them; they do not change while it goes on."""
        return -(-self.planned_ends[-1] // self.step_size)

    @property
    def epoch_ends(self) -> list[int]:
        """For each epoch that begins, the images of the run up to its end."""
        return self.planned_ends

    @property
    def known_epochs(self) -> int:
        """How many epochs, from the first, can be computed now."""
        return len(self.epoch_ends)

    def asked(self) -> list[Fraction]:
        """Returns the images that are asked for of each sampler: per epoch, or in all that is known."""
        return [len(sampler.sample_ids) * sampler.multiply for sampler in self.samplers]

    @property
    def num_images(self) -> int:
        """Images shown in the whole run, each as often as it is shown."""
        return self.epoch_ends[-1]

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.num_images // self.step_size)

    def progress(self, images_seen: int) -> float:
        """Returns the share of the run that is done after so many images; the learning rate follows it."""
        return images_seen / self.num_images

    def shown_after(self, epoch: int) -> list[int]:
        """Counts the images that each sampler has shown when an epoch ends.

        An epoch that max_train_steps cuts short takes less of every folder, so that over any run each has its share to
        within one image.
        """
        ends = [sampler.epoch_span(epoch)[1] for sampler in self.samplers]
        if sum(ends) == self.epoch_ends[epoch]:
            return ends
        return self._cut_short(self.asked(), [sampler.epoch_span(epoch)[0] for sampler in self.samplers])

    def _cut_short(self, shares: Sequence[Fraction], begins: Sequence[int]) -> list[int]:
        """Divides the run's images among the folders, and those of each among its samplers, which follow each other."""

        def of_folders(values: Sequence[_Number]) -> list[list[_Number]]:
            return [[values[place] for place in places] for places in by_folder]

        by_folder = [list(group) for _, group in groupby(range(len(shares)), lambda n: self.samplers[n].folder_index)]
        wanted, low = of_folders(shares), of_folders(begins)
        totals = apportion(self.num_images, [sum(each, Fraction(0)) for each in wanted], [*map(sum, low)])
        return [count for divided in map(apportion, totals, wanted, low) for count in divided]

    def shown(self) -> SampleIds:
        """Returns the places of the samples that the run shows, each once, in ascending order."""
        counts = self.shown_after(self.known_epochs - 1)
        first = [sampler.first(self.seed, count) for sampler, count in zip(self.samplers, counts, strict=True)]
        return np.sort(np.concatenate(first))

    def images_by_folder(self, images_seen: int | None = None) -> dict[int, tuple[Fraction, int]]:
        """Counts, by the folder's index, the images asked for (see `asked`), and those that the run shows.

        Args:
            images_seen: where the run ends, with whole steps; None: where it is through.
        """
        asked: dict[int, Fraction] = defaultdict(Fraction)
        for sampler, share in zip(self.samplers, self.asked(), strict=True):
            asked[sampler.folder_index] += share
        shown = Counter[int]()
        if images_seen is None:
            for sampler, count in zip(self.samplers, self.shown_after(self.known_epochs - 1), strict=True):
                shown[sampler.folder_index] += count
        else:
            shown += Counter(islice(self._shown_folders(), images_seen))
        return {index: (count, shown[index]) for index, count in asked.items()}

    def _shown_folders(self) -> Iterator[int]:
        """Yields the index of the folder of each image that the run shows."""
        for slot in self._slots_after(0):
            for batch in slot:
                yield from (int(self.folder_of[sample_id]) for sample_id in batch.sample_ids)

    def count_epoch(self, epoch: int) -> dict[Size, tuple[int, int]]:
        """Counts, for each bucket, its whole batches in an epoch, and its images that go into mixed slots."""
        whole: dict[Size, int] = defaultdict(int)
        images: dict[Size, int] = defaultdict(int)
        for part in self._epoch_parts(epoch):
            for piece in part:
                bucket = self.groups[piece.group][0]
                whole[bucket] += len(piece.sample_ids) == self.batch_size
                images[bucket] += len(piece.sample_ids)
        return {bucket: (whole[bucket], images[bucket] - whole[bucket] * self.batch_size) for bucket in self.buckets}

    def mean_forward_passes(self) -> float:
        """Computes how many forward passes a slot takes on average in the first epoch; 1 is the least."""
        slots = forward_passes = 0
        for slot in islice(self._slots_after(0), max(1, self.epoch_ends[0] // self.batch_size)):
            slots, forward_passes = slots + 1, forward_passes + len(slot)
        return forward_passes / slots

    def steps_after(self, images_seen: int) -> Iterator[Step]:
        """Computes the steps that are left, as far as they are known, after so many images, which end a step."""
        step: list[Slot] = []
        for slot in self._slots_after(images_seen):
            step.append(slot)
            if len(step) * self.batch_size == self.step_size:
                yield tuple(step)
                step = []
        if step:
            yield tuple(step)

    def _slots_after(self, images_seen: int) -> Iterator[Slot]:
        index = images_seen
        pieces: list[Piece] = []
        for epoch in range(bisect_right(self.epoch_ends, images_seen), self.known_epochs):
            end = self._epoch_begin(epoch)
            for part in self._epoch_parts(epoch):
                end += count_images(part)
                if end <= images_seen:
                    continue
                pieces += part
                if count_images(pieces) == self.batch_size:
                    yield self._slot(pieces, index)
                    index, pieces = end, []
        if pieces:
            yield self._slot(pieces, index)

    def _slot(self, pieces: Sequence[Piece], index: int) -> Slot:
        """Makes a slot; pieces of one group go through the model together."""
        members: dict[int, list[int]] = defaultdict(list)
        for piece in pieces:
            members[piece.group] += piece.sample_ids.tolist()
        batches = []
        for group, sample_ids in members.items():
            indices = tuple(range(index, index + len(sample_ids)))
            batches.append(Batch(*self.groups[group], tuple(sample_ids), indices))
            index += len(sample_ids)
        return tuple(batches)

    def _epoch_begin(self, epoch: int) -> int:
        return self.epoch_ends[epoch - 1] if epoch else 0

    def _epoch_parts(self, epoch: int) -> list[list[Piece]]:
        """An epoch's images: those that complete the slot in which it begins, whole slots, those that begin a slot."""
        begin, end = self._epoch_begin(epoch), self.epoch_ends[epoch]
        num_first = min(end - begin, -begin % self.batch_size)
        num_last = (end - begin - num_first) % self.batch_size
        whole, rest = self._split(self._sample_epoch(epoch), num_first + num_last, epoch)
        num_mixed = (count_images(rest) - num_first - num_last) // self.batch_size
        first, *mixed, last = fill_parts(rest, [num_first, *[self.batch_size] * num_mixed, num_last])
        slots = [*([piece] for piece in whole), *mixed]
        order = permutation(stream_key(self.seed, "batches", epoch), len(slots)).tolist()
        return [first, *self._pack([slots[place] for place in order], begin + num_first, epoch), last]

    def _pack(self, slots: list[list[Piece]], begin: int, epoch: int) -> list[list[Piece]]:
        """Puts slots of one batch_id into the same optimizer steps."""
        per_step = self.step_size // self.batch_size
        if per_step == 1:
            return slots
        batch_ids = [self.groups[slot[0].group][1] if len(slot) == 1 else "" for slot in slots]
        first_step = -(begin // self.batch_size) % per_step
        order = pack_batch_ids(batch_ids, first_step, per_step, stream_key(self.seed, "steps", epoch))
        return [slots[place] for place in order]

    def _sample_epoch(self, epoch: int) -> SampleIds:
        """The images of an epoch, shuffled together."""
        before = self.shown_after(epoch - 1) if epoch else [0] * len(self.samplers)
        spans = list(zip(before, self.shown_after(epoch), strict=True))
        return sample_spans(self.samplers, self.seed, epoch, spans)

    def _split(self, sample_ids: SampleIds, min_rest: int, epoch: int) -> tuple[list[Piece], list[Piece]]:
        """Splits an epoch into whole batches of one group, and the rest of each group, in random order.

        At least `min_rest` images are in the rest; a whole batch is added to it where they would be fewer.
        """
        groups = self.group_of[sample_ids]
        by_group = sample_ids[np.argsort(groups, kind="stable")]
        ends = np.cumsum(np.bincount(groups, minlength=len(self.groups)))
        whole: list[Piece] = []
        rest: list[Piece] = []
        for group, members in enumerate(np.split(by_group, ends[:-1])):
            cut = len(members) // self.batch_size * self.batch_size
            whole += [Piece(group, members[at : at + self.batch_size]) for at in range(0, cut, self.batch_size)]
            if cut < len(members):
                rest.append(Piece(group, members[cut:]))
        rest = [rest[place] for place in permutation(stream_key(self.seed, "rest", epoch), len(rest)).tolist()]
        while count_images(rest) < min_rest:
            rest.append(whole.pop())
        return whole, rest


def mixed_batches_note(forward_passes: float) -> str:
    """Tells that rare shapes slow a run down, and how to mend it."""
    return (
        f"Many shapes have too few images for a whole batch, so a batch takes {forward_passes:.1f} forward passes on "
        "average; nothing is repeated, but it is slower: crop images to fewer shapes, or lower batch_size."
    )


def _group(sample: Sample) -> tuple[Size, str]:
    return sample.bucket, sample.settings.batch_id
