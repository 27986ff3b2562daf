"""The objective of every run: predict the noise, or v."""

from torch import Tensor

from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import formulas
from dreamloom.train.model.model import Model
from dreamloom.train.objectives.losses import value_losses
from dreamloom.train.objectives.objective import ForwardPass, MakeTeacher
from dreamloom.train.objectives.weightings import chosen_weightings


class Denoising:
    """The weighted error of the prediction.

    Args:
        config: which loss, and which weightings.
        prediction_type: epsilon or v_prediction.
    """

    def __init__(self, config: TrainConfig, prediction_type: str) -> None:
        self.config = config
        self.prediction_type = prediction_type
        self.weightings = chosen_weightings(config)

    def loss(self, forward: ForwardPass) -> Tensor:
        """Computes the sum of the losses, a scalar."""
        return self.losses(forward, forward.noisy.target).sum()

    def losses(self, forward: ForwardPass, target: Tensor) -> Tensor:
        """Computes each image's loss, [B], for a target [B, C, h, w]."""
        losses = value_losses(self.config, forward.predicted, target, forward.noisy)
        losses = formulas.sample_losses(losses, forward.loss_mask) * forward.loss_scales
        for weighting in self.weightings:
            losses = losses * weighting(self.config, self.prediction_type, forward.noisy)
        return losses


def make_denoising(config: TrainConfig, model: Model, teacher: MakeTeacher) -> Denoising:
    """Makes the objective, which every run has."""
    return Denoising(config, model.prediction_type)
