"""Prior prediction: for a share of ground truth, the target is what the base predicts, not the noise.

The real image says where in the space of images the base is held to itself, so nothing of it is learned. OneTrainer and
SimpleTuner have it for LoRA; here it serves full fine-tunes, too.
"""

import numpy as np
import torch
from torch import Tensor

from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion.rng import stream_key, uniform
from dreamloom.train.model.model import Model
from dreamloom.train.objectives.denoising import Denoising
from dreamloom.train.objectives.objective import ForwardPass, MakeTeacher, Teacher


class PriorPrediction:
    """Replaces a share of the denoising loss: it is the difference between the two losses.

    Args:
        config: the run's.
        denoising: computes both losses.
        teacher: the base.
    """

    def __init__(self, config: TrainConfig, denoising: Denoising, teacher: Teacher) -> None:
        self.config = config
        self.denoising = denoising
        self.teacher = teacher
        self.key = stream_key(config.seed, "prior prediction")

    def loss(self, forward: ForwardPass) -> Tensor:
        """Computes what the base's target changes in the sum of the losses; asks the base for these images only."""
        draws = torch.from_numpy(uniform(self.key, np.array(forward.batch.batch.indices)))
        rows = torch.nonzero((draws < self.config.prior_prediction) & forward.batch.is_ground_truth)[:, 0]
        if not len(rows):
            return forward.predicted.new_zeros(())
        chosen = forward.select(rows.to(forward.predicted.device, non_blocking=True))
        device = forward.predicted.device
        text = forward.batch.text.map(lambda each: each[rows].to(device, non_blocking=True))
        prior = self.teacher.predict(chosen, text)
        losses = self.denoising.losses(chosen, prior) - self.denoising.losses(chosen, chosen.noisy.target)
        return self.config.prior_prediction_weight * losses.sum()


def make_prior_prediction(config: TrainConfig, model: Model, teacher: MakeTeacher) -> PriorPrediction | None:
    """Makes the objective where a share of ground truth is asked for."""
    if not config.prior_prediction:
        return None
    return PriorPrediction(config, Denoising(config, model.prediction_type), teacher())
