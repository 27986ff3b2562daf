"""Dealing, not drawing: which images an epoch shows.

Each folder is an endless row of shuffled decks, one after the other, each holding all of its images once. An epoch
takes the next cards of the row. So every image is seen once before any is seen twice, and the number of cards an
epoch is exact: all a pure function of (seed, epoch), with nothing to save.
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
"""Places of samples in the data set."""


@dataclass(frozen=True)
class FolderSampler:
    """One folder's cards."""

    name: str
    sample_ids: tuple[int, ...]
    """Sample ids, in order of name."""
    multiply: Fraction

    def epoch_span(self, epoch: int) -> tuple[int, int]:
        """Where in its endless row the cards of an epoch begin and end: ⌊e·n·m⌋ to ⌊(e+1)·n·m⌋."""
        each = len(self.sample_ids) * self.multiply
        return floor(epoch * each), floor((epoch + 1) * each)

    def sample_epoch(self, seed: int, epoch: int) -> SampleIds:
        """The sample ids of an epoch, in the order of the row."""
        start, stop = self.epoch_span(epoch)
        if stop == start:
            return np.empty(0, np.int64)
        count = len(self.sample_ids)
        passes = [
            _shuffled(self.sample_ids, seed, self.name, turn) for turn in range(start // count, -(-stop // count))
        ]
        row = np.concatenate(passes)
        return row[start % count : start % count + stop - start]


def sample_epoch(decks: Sequence[FolderSampler], seed: int, epoch: int) -> SampleIds:
    """The sample ids that an epoch shows, from all folders, shuffled together."""
    dealt = np.concatenate([deck.sample_epoch(seed, epoch) for deck in decks])
    return dealt[permutation(stream_key(seed, "epoch", epoch), len(dealt))]


@lru_cache(maxsize=256)
def _shuffled(cards: tuple[int, ...], seed: int, name: str, turn: int) -> SampleIds:
    return np.asarray(cards, np.int64)[permutation(stream_key(seed, "deck", name, turn), len(cards))]
