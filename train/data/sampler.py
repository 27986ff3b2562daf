"""Sampling without replacement: which images an epoch shows.

The images of a folder form an endless row of shuffled passes, each with every image once. An epoch takes the next
images of the row. So every image is shown once before any is shown twice, and the number of images per epoch is exact:
folders of fractional multiplies round together. All of it is a pure function of (seed, epoch), with nothing to save.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor

import numpy as np
import numpy.typing as npt

from dreamloom.train.data.dataset import Dataset
from dreamloom.train.diffusion.rng import permutation, stream_key

SampleIds = npt.NDArray[np.int64]
"""Places of samples in the dataset."""
BROKEN = -1
"""Stands for an image that can't be decoded: it is shuffled, so that the others keep their order, but not shown."""


@dataclass(frozen=True, eq=False)
class FolderSampler:
    """Samples the images of one folder, or those of a folder that share a multiply of their own."""

    name: str
    """Names the order of its passes."""
    folder_index: int
    """Which of the dataset's folders it is."""
    sample_ids: SampleIds
    """In order of name."""
    multiply: Fraction
    """How often each image is shown per epoch."""
    division: "Division | None" = None
    """Divides the images among this sampler and others; None: it is the only one."""
    place: int = 0
    """Which of those samplers it is."""
    with_broken: SampleIds | None = None
    """`sample_ids` with BROKEN in the places of images that can't be decoded; None: there are none."""
    _passes: dict[tuple[int, int], SampleIds] = field(default_factory=dict, init=False, repr=False)

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
        row = np.concatenate([self._shuffled_pass(seed, number) for number in numbers])
        return row[start % count : start % count + stop - start]

    def first(self, seed: int, count: int) -> SampleIds:
        """Returns the different images among the first so many of the row."""
        return self.sample_ids if count >= len(self.sample_ids) else self.sample_span(seed, 0, count)

    def _shuffled_pass(self, seed: int, number: int) -> SampleIds:
        """Returns a pass: all images in an order of its own. The last two are kept, as epochs follow each other."""
        if (seed, number) not in self._passes:
            for before in list(self._passes)[:-1]:
                del self._passes[before]
            all_ids = self.sample_ids if self.with_broken is None else self.with_broken
            shuffled = all_ids[permutation(stream_key(seed, "deck", self.name, number), len(all_ids))]
            self._passes[seed, number] = shuffled if self.with_broken is None else shuffled[shuffled != BROKEN]
        return self._passes[seed, number]


class Division:
    """Divides what is shown among folders, and what a folder shows among its samplers: what is due first comes first.

    After e epochs all folders have shown ⌊e·S⌋ images, S being the sum of the shares, and each its share to within one
    image. If each rounded down for itself, many folders or multiplies would show far too few. This is the chairman
    assignment problem (Tijdeman 1980), solved by the earliest due date.

    Args:
        shares: what each shows per epoch, above 0.
        whole: divides the images among wholes, of which one is divided here; None: there is nothing beside it.
        place: which of them.
    """

    def __init__(self, shares: Sequence[Fraction], whole: "Division | None" = None, place: int = 0) -> None:
        self.exact, self.total = shares, sum(shares, Fraction(0))
        self.whole, self.place = whole, place
        self.shares = np.array([float(share) for share in shares])
        self.rounded = np.array([Fraction(float(share)) != share for share in shares])
        self.rows: list[npt.NDArray[np.int64]] = [np.zeros(len(shares), np.int64)]

    def after(self, epochs: int) -> npt.NDArray[np.int64]:
        """Returns how many images each has shown after so many epochs, int64 [shares]."""
        while len(self.rows) <= epochs:
            self.rows.append(self._divide(len(self.rows)))
        return self.rows[epochs]

    def _divide(self, epochs: int) -> npt.NDArray[np.int64]:
        images, factor, asked = floor(epochs * self.total), Fraction(epochs), epochs * self.shares
        if self.whole is not None:
            images = int(self.whole.after(epochs)[self.place])
            factor, asked = images / self.total, images * self.shares / self.shares.sum()
        shown = np.maximum(self.rows[-1], self._floor(asked, factor))
        due = np.where(shown < asked - _ROUNDING, (shown + 1) / self.shares, np.inf)
        shown[np.argsort(due, kind="stable")[: max(0, images - int(shown.sum()))]] += 1
        return shown

    def _floor(self, asked: npt.NDArray[np.float64], factor: Fraction) -> npt.NDArray[np.int64]:
        """Rounds shares times a factor down, exactly where float64 can't tell on which side of an integer they are."""
        whole = np.floor(asked).astype(np.int64)
        unsure = np.abs(asked - np.rint(asked)) < _ROUNDING
        for place in map(int, np.flatnonzero(unsure & self.rounded if factor.denominator == 1 else unsure)):
            whole[place] = floor(factor * self.exact[place])
        return whole


_ROUNDING = 1e-7
"""Above the errors of a share in float64, times the most epochs of a run."""


def make_samplers(dataset: Dataset) -> list[FolderSampler]:
    """Makes a sampler per folder, and one more for each multiply that images of a folder have for themselves."""
    by_folder: dict[int, dict[Fraction, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, sample in dataset.dealt():
        by_folder[sample.folder_index][sample.settings.multiply].append(BROKEN if place is None else place)
    decks = {index: found for index, members in sorted(by_folder.items()) if (found := _decks(members))}
    shares = [[multiply * len(sample_ids) for multiply, sample_ids, _ in found] for found in decks.values()]
    folders = Division([sum(of, Fraction(0)) for of in shares])
    samplers = []
    for place, (folder_index, found) in enumerate(decks.items()):
        folder, division = dataset.folders[folder_index], Division(shares[place], folders, place)
        for number, (multiply, sample_ids, with_broken) in enumerate(found):
            name = folder.name if multiply == folder.multiply else f"{folder.name}\0{multiply}"
            samplers.append(FolderSampler(name, folder_index, sample_ids, multiply, division, number, with_broken))
    return samplers


def _decks(members: Mapping[Fraction, Sequence[int]]) -> list[tuple[Fraction, SampleIds, SampleIds | None]]:
    """Returns the images of each multiply, and where some are broken, their places among them."""
    decks = []
    for multiply, places in sorted(members.items()):
        all_ids = np.array(places, np.int64)
        sample_ids = all_ids[all_ids != BROKEN]
        if len(sample_ids):
            decks.append((multiply, sample_ids, None if len(sample_ids) == len(all_ids) else all_ids))
    return decks


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
