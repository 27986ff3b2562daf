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
        start, stop = self.epoch_span(epoch)
        if stop == start:
            return np.empty(0, np.int64)
        count = len(self.sample_ids)
        numbers = range(start // count, -(-stop // count))
        row = np.concatenate([_shuffled_pass(self.sample_ids, seed, self.name, number) for number in numbers])
        return row[start % count : start % count + stop - start]


def sample_epoch(
    samplers: Sequence[FolderSampler], seed: int, epoch: int, counts: Sequence[int] | None = None
) -> SampleIds:
    """Samples an epoch of all folders, shuffled together.

    Args:
        samplers: of the folders.
        seed: the run's.
        epoch: counted from 0.
        counts: how many images to take of each sampler, where the epoch is cut short; None: all.
    """
    limits = [None] * len(samplers) if counts is None else counts
    sampled = [s.sample_epoch(seed, epoch)[:limit] for s, limit in zip(samplers, limits, strict=True)]
    sample_ids = np.concatenate(sampled)
    return sample_ids[permutation(stream_key(seed, "epoch", epoch), len(sample_ids))]


@lru_cache(maxsize=256)
def _shuffled_pass(sample_ids: tuple[int, ...], seed: int, name: str, number: int) -> SampleIds:
    return np.asarray(sample_ids, np.int64)[permutation(stream_key(seed, "deck", name, number), len(sample_ids))]
