"""The steps of a run whose share of ground truth is decided while it goes on.

The run is divided into stretches, each from one evaluation to the next, and each stretch has its ratio of ground truth
to other images. What is shown is a function of the seed and the ratios so far. After each stretch, each sampler has
shown the sum of its shares of the stretches, to within one image.
"""

from collections.abc import Sequence
from fractions import Fraction

from dreamloom.base.apportion import apportion
from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset, find_ground_truth
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.settings.run import steps_between


class RatioSchedule(BatchSchedule):
    """A schedule that has stretches in place of epochs; as many of its steps are known as ratios were given.

    It shows as many images as the folder's own multiplies give: these also divide ground truth among its folders.

    Args:
        dataset: what is trained on.
        config: the run's; of it count ground_truth and evaluate_every_n_steps, too.

    Raises:
        UserError: the ground truth or what it is beside shows no image.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        """Divides the run into stretches; their ratios are still to be given."""
        self.evaluate_every_n_steps = config.evaluate_every_n_steps
        self.ratios: tuple[Fraction, ...] = ()
        super().__init__(dataset, config)
        ground_truth = find_ground_truth(dataset, config)
        self.is_ground_truth = [sampler.folder_index in ground_truth for sampler in self.samplers]
        self.weights = super().asked()
        self._shown = [[0] * len(self.samplers)]
        if not self._sum(True) or not self._sum(False):
            raise UserError("auto_ratio needs images of ground truth and others; see ground_truth and multiply.txt.")

    @property
    def known_epochs(self) -> int:
        """How many stretches, from the first, have a ratio."""
        return min(len(self.ratios), len(self.epoch_ends))

    def give_ratios(self, ratios: Sequence[Fraction]) -> None:
        """Takes the ratios of the stretches from the first; those that were given before must be the same."""
        assert tuple(ratios[: len(self.ratios)]) == self.ratios
        self.ratios = tuple(ratios)

    def asked(self) -> list[Fraction]:
        """Returns the images that the stretches so far ask of each sampler; before there are any, its weight."""
        return self._asked_after(self.known_epochs - 1) if self.ratios else super().asked()

    def shown_after(self, epoch: int) -> list[int]:
        """Counts the images that each sampler has shown when a stretch ends."""
        while len(self._shown) <= epoch + 1:
            stretch = len(self._shown) - 1
            asked = self._asked_after(stretch)
            self._shown.append(apportion(self.epoch_ends[stretch], asked, at_least=self._shown[-1]))
        return self._shown[epoch + 1]

    def _find_ends(self) -> list[int]:
        total = super()._find_ends()[-1]
        steps = steps_between(self.evaluate_every_n_steps, -(-total // self.step_size))
        length = steps * self.step_size
        return [*range(length, total, length), total]

    def _asked_after(self, stretch: int) -> list[Fraction]:
        """Returns the images asked for of each sampler up to the end of a stretch; they add up to all images."""
        begins = [0, *self.epoch_ends]
        asked = [Fraction(0)] * len(self.samplers)
        for number, ratio in enumerate(self.ratios[: stretch + 1]):
            images = begins[number + 1] - begins[number]
            asked = [before + images * share for before, share in zip(asked, self._shares(ratio), strict=True)]
        return asked

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
