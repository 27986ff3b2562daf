"""The steps of a run whose share of ground truth is decided while it goes on.

The run is divided into stretches, each from one evaluation to the next, and each stretch has its ratio of ground truth
to other images. What is shown is a function of the seed and the ratios so far. After each stretch, each sampler has
shown the sum of its shares of the stretches, to within one image.

Epochs count the other images: a run shows as many of them as the folder gives, whatever ground truth it takes beside
them. So its length follows from the ratios, too, unless max_train_steps gives it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from math import ceil

import numpy as np

from dreamloom.base.apportion import apportion
from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset, find_ground_truth
from dreamloom.train.data.sampler import SampleIds
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.settings.run import early_steps, steps_between


class RatioSchedule(BatchSchedule):
    """A schedule that has stretches in place of epochs; as many of its steps are known as ratios were given.

    How long it is beyond them is known only if no more ratios come: `num_images` goes by the last one, and before
    there is any, by the folder's own. The folder's multiplies divide ground truth, and the other images, among folders.

    Args:
        dataset: what is trained on.
        config: the run's; of it count ground_truth and evaluate_every_n_steps, too.

    Raises:
        UserError: the ground truth or what it is beside shows no image.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        """Divides the run into stretches; their ratios are still to be given."""
        self.ratios: tuple[Fraction, ...] = ()
        self._stretch_ends: list[int] = []
        self._others_at: list[Fraction] = []
        self.ground_truth = find_ground_truth(dataset, config)
        super().__init__(dataset, config)
        self.weights = super().asked()
        self._stretch_steps = steps_between(config.evaluate_every_n_steps, self.planned_steps)
        self.early_steps = early_steps(self._stretch_steps)
        ends, total = [0], self.planned_ends[-1]
        while ends[-1] < total:
            ends.append(min(self._end_after(ends[-1]), total))
        self._stretch_ends = ends[1:]
        self._shown = [[0] * len(self.samplers)]
        if not self._sum(True) or not self._sum(False) or not (self.max_images or self._others):
            raise UserError("auto_ratio needs images of ground truth and others; see ground_truth and multiply.txt.")

    @cached_property
    def is_ground_truth(self) -> list[bool]:
        """Of each sampler, whether its images are ground truth."""
        return [sampler.folder_index in self.ground_truth for sampler in self.samplers]

    @property
    def epoch_ends(self) -> list[int]:
        """For each stretch, the images of the run up to its end."""
        return self._stretch_ends or self.planned_ends

    def progress(self, images_seen: int) -> float:
        """Returns the share of the run that is done: of the other images, or of the steps where these are given."""
        if self.max_images is not None or not self.ratios:
            return super().progress(images_seen)
        return float(min(Fraction(1), self._others_after(images_seen) / self._others))

    @property
    def known_epochs(self) -> int:
        """How many stretches, from the first, have a ratio."""
        return min(len(self.ratios), len(self.epoch_ends))

    def give_ratios(self, ratios: Sequence[Fraction]) -> None:
        """Takes the ratios of the stretches from the first; those that are known must be the same."""
        assert all(ratio == known for ratio, known in zip(ratios, self.ratios, strict=False))
        self.ratios += tuple(ratios[len(self.ratios) :])
        if self.ratios and self.max_images is None:
            self._find_stretches()

    def asked(self) -> list[Fraction]:
        """Returns the images that the stretches so far ask of each sampler; before there are any, its weight."""
        return self._asked_after(self.known_epochs - 1) if self.ratios else super().asked()

    def shown(self) -> SampleIds:
        """Returns the places of all samples, as ratios that are not known yet decide which of them are shown."""
        return np.arange(len(self.group_of))

    def shown_after(self, epoch: int) -> list[int]:
        """Counts the images that each sampler has shown when a stretch ends."""
        while len(self._shown) <= epoch + 1:
            stretch = len(self._shown) - 1
            asked = self._asked_after(stretch)
            self._shown.append(apportion(self.epoch_ends[stretch], asked, at_least=self._shown[-1]))
        return self._shown[epoch + 1]

    @cached_property
    def _others(self) -> int:
        """Images beside ground truth that the folder's own epochs show."""
        last = len(self.planned_ends) - 1
        pairs = zip(self.samplers, self.is_ground_truth, strict=True)
        return sum(sampler.epoch_span(last)[1] for sampler, is_truth in pairs if not is_truth)

    def _find_stretches(self) -> None:
        """Finds where stretches end, if the last ratio is kept until the other images have been shown."""
        ends, others = [0], [Fraction(0)]
        while (left := self._others - others[-1]) > 0:
            per_other = 1 + self._ratio_of(len(ends) - 1)
            images = min(ceil(left * per_other), self._end_after(ends[-1]) - ends[-1])
            ends.append(ends[-1] + images)
            others.append(others[-1] + images / per_other)
        self._stretch_ends, self._others_at = ends[1:], others

    def _end_after(self, images: int) -> int:
        """Returns where the stretch ends that begins after so many images, unless the run ends before."""
        step = images // self.step_size
        whole = (step // self._stretch_steps + 1) * self._stretch_steps
        return self.step_size * next((early for early in self.early_steps if early > step), whole)

    def _asked_after(self, stretch: int) -> list[Fraction]:
        """Returns the images asked for of each sampler up to the end of a stretch; they add up to all images."""
        begins = [0, *self.epoch_ends]
        asked = [Fraction(0)] * len(self.samplers)
        for number, ratio in enumerate(self.ratios[: stretch + 1]):
            images = begins[number + 1] - begins[number]
            asked = [before + images * share for before, share in zip(asked, self._shares(ratio), strict=True)]
        return asked

    def _others_after(self, images_seen: int) -> Fraction:
        """Returns the images beside ground truth that are asked for of the first so many."""
        stretch = bisect_right(self._stretch_ends, images_seen)
        begin = self._stretch_ends[stretch - 1] if stretch else 0
        return self._others_at[stretch] + (images_seen - begin) / (1 + self._ratio_of(stretch))

    def _ratio_of(self, stretch: int) -> Fraction:
        """Returns the ratio of a stretch; of one that is not known yet, the last one."""
        return self.ratios[min(stretch, len(self.ratios) - 1)]

    def _shares(self, ratio: Fraction) -> list[Fraction]:
        """Divides one image among the samplers, in this ratio of ground truth to others."""
        of_kind = {True: ratio / (1 + ratio) / self._sum(True), False: 1 / (1 + ratio) / self._sum(False)}
        return [weight * of_kind[kind] for weight, kind in zip(self.weights, self.is_ground_truth, strict=True)]

    def _sum(self, kind: bool) -> Fraction:
        pairs = zip(self.weights, self.is_ground_truth, strict=True)
        return sum((weight for weight, of in pairs if of is kind), Fraction(0))


def make_schedule(dataset: Dataset, config: TrainConfig) -> BatchSchedule:
    """Returns the schedule that a run's config asks for."""
    return RatioSchedule(dataset, config) if config.auto_ratio else BatchSchedule(dataset, config)
