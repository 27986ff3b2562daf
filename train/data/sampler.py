"""Sampling without replacement: which images an epoch shows.

The images of a folder form an endless row of shuffled passes, each with every image once. An epoch takes the next
images of the row. So every image is shown once before any is shown twice, and the number of images per epoch is exact.
All of it is a pure function of (seed, epoch), with nothing to save.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import floor

import numpy as np
import numpy.typing as npt

from dreamloom.train.data.dataset import Dataset
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
    division: "Division | None" = field(default=None, compare=False)
    """Divides the folder's images among its samplers; None: this is the only one."""
    place: int = 0
    """Which of the folder's samplers it is."""

    def epoch_span(self, epoch: int) -> tuple[int, int]:
        """Computes where an epoch begins and ends in the endless row: ⌊e·n·m⌋ to ⌊(e+1)·n·m⌋, if it is the only one."""
        return self._shown_after(epoch), self._shown_after(epoch + 1)

    def _shown_after(self, epochs: int) -> int:
        if self.division is None:
            return floor(epochs * len(self.sample_ids) * self.multiply)
        return int(self.division.after(epochs)[self.place])

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


class Division:
    """Divides the images that a folder shows among its samplers: those whose next image is due first come first.

    After e epochs the folder has shown ⌊e·S⌋ images, S being the sum of the shares, and each sampler its share to
    within one image. If each rounded down for itself, a folder of many multiplies would show far too few. This is the
    chairman assignment problem (Tijdeman 1980), solved by the earliest due date.

    Args:
        shares: what each sampler shows per epoch, above 0.
    """

    def __init__(self, shares: Sequence[Fraction]) -> None:
        self.total = sum(shares, Fraction(0))
        self.shares = np.array([float(share) for share in shares])
        self.rows: list[npt.NDArray[np.int64]] = [np.zeros(len(shares), np.int64)]

    def after(self, epochs: int) -> npt.NDArray[np.int64]:
        """Returns how many images each sampler has shown after so many epochs, int64 [samplers]."""
        while len(self.rows) <= epochs:
            self.rows.append(self._divide(len(self.rows)))
        return self.rows[epochs]

    def _divide(self, epochs: int) -> npt.NDArray[np.int64]:
        asked = epochs * self.shares
        shown = np.maximum(self.rows[-1], np.floor(asked + _ROUNDING).astype(np.int64))
        left = floor(epochs * self.total) - int(shown.sum())
        due = np.where(shown < asked - _ROUNDING, (shown + 1) / self.shares, np.inf)
        shown[np.argsort(due, kind="stable")[: max(0, left)]] += 1
        return shown


_ROUNDING = 1e-7
"""Above the errors of a share in float64, times the most epochs of a run."""


def make_samplers(dataset: Dataset) -> list[FolderSampler]:
    """Makes a sampler per folder, and one more for each multiply that images of a folder have for themselves."""
    by_folder: dict[int, dict[Fraction, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, sample in enumerate(dataset.samples):
        by_folder[sample.folder_index][sample.settings.multiply].append(place)
    samplers = []
    for folder_index, members in sorted(by_folder.items()):
        folder = dataset.folders[folder_index]
        shares = [multiply * len(places) for multiply, places in sorted(members.items())]
        division = Division(shares) if len(shares) > 1 else None
        for number, (multiply, places) in enumerate(sorted(members.items())):
            name = folder.name if multiply == folder.multiply else f"{folder.name}\0{multiply}"
            samplers.append(FolderSampler(name, folder_index, tuple(places), multiply, division, number))
    return samplers


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
