"""Sampling without replacement: which images an epoch shows.

The images of a folder form an endless row of shuffled passes, each with every image once. An epoch takes the next
images of the row. So every image is shown once before any is shown twice, and the number of images per epoch is exact.
All of it is a pure function of (seed, epoch), with nothing to save.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import floor

import numpy as np
import numpy.typing as npt

from dreamloom.train.diffusion.rng import permutation, stream_key

SampleIds = npt.NDArray[np.int64]
"""Places of samples in the dataset."""


@dataclass(frozen=True)
class FolderSampler:
    """Samples the images of one folder, or those of a folder that share a multiply of their own."""

    name: str
    """Names the order of its passes."""
    folder_index: int
    """Which of the dataset's folders it is."""
    sample_ids: tuple[int, ...]
    """In order of name."""
    multiply: Fraction
    """How often each image is shown per epoch."""

    def epoch_span(self, epoch: int) -> tuple[int, int]:
        """Computes where an epoch begins and ends in the endless row: ⌊e·n·m⌋ to ⌊(e+1)·n·m⌋."""
        per_epoch = len(self.sample_ids) * self.multiply
        return floor(epoch * per_epoch), floor((epoch + 1) * per_epoch)

    def sample_epoch(self, seed: int, epoch: int) -> SampleIds:
        """Samples an epoch, in the order of the row."""
        return self.sample_span(seed, *self.epoch_span(epoch))

    def sample_span(self, seed: int, start: int, stop: int) -> SampleIds:
        """Returns the images of the row from one place to another."""
        if stop == start:
            return np.empty(0, np.int64)
        count = len(self.sample_ids)
        numbers = range(start // count, -(-stop // count))
        row = np.concatenate([_shuffled_pass(self.sample_ids, seed, self.name, number) for number in numbers])
        return row[start % count : start % count + stop - start]


def sample_epoch(samplers: Sequence[FolderSampler], seed: int, epoch: int) -> SampleIds:
    """Samples an epoch of all folders, counted from 0, shuffled together."""
    return sample_spans(samplers, seed, epoch, [sampler.epoch_span(epoch) for sampler in samplers])


def sample_spans(
    samplers: Sequence[FolderSampler], seed: int, epoch: int, spans: Sequence[tuple[int, int]]
) -> SampleIds:
    """Samples a part of each sampler's row, shuffled together.

    Args:
        samplers: of the folders.
        seed: the run's.
        epoch: names the order.
        spans: where the part of each sampler begins and ends.
    """
    sampled = [s.sample_span(seed, start, stop) for s, (start, stop) in zip(samplers, spans, strict=True)]
    sample_ids = np.concatenate(sampled)
    return sample_ids[permutation(stream_key(seed, "epoch", epoch), len(sample_ids))]


@lru_cache(maxsize=256)
def _shuffled_pass(sample_ids: tuple[int, ...], seed: int, name: str, number: int) -> SampleIds:
    return np.asarray(sample_ids, np.int64)[permutation(stream_key(seed, "deck", name, number), len(sample_ids))]
