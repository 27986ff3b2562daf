"""L2-SP (Li, Grandvalet, Davoine 2018, arXiv 1802.01483): the weights are pulled back to where they started."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dreamloom.train.config import TrainConfig
from dreamloom.train.model.model import Model
from dreamloom.train.objectives.objective import ForwardPass, MakeTeacher


class L2SP:
    """Half the strength times the squared distance of all trained weights to the base's, for each image.

    Adapters start at zero, so with LoRA their own distance to the start is meant.

    Args:
        strength: α of the paper.
        parameters: the trained ones, before the first step.
    """

    def __init__(self, strength: float, parameters: Sequence[Tensor]) -> None:
        self.strength = strength
        self.parameters = parameters
        self.start = [parameter.detach().clone() for parameter in parameters]

    def loss(self, forward: ForwardPass) -> Tensor:
        """Computes the pull, times the batch's images: divided by those of the step it counts once a step."""
        images = len(forward.indices) - forward.batch.batch.padding
        pairs = zip(self.parameters, self.start, strict=True)
        squared = [(parameter.float() - start.float()).square().sum() for parameter, start in pairs]
        return images * self.strength / 2 * torch.stack(squared).sum()


def make_l2_sp(config: TrainConfig, model: Model, teacher: MakeTeacher) -> L2SP | None:
    """Makes the objective where a strength is given."""
    if not config.l2_sp:
        return None
    modules = (model.denoiser, *model.text_encoders.values())
    return L2SP(config.l2_sp, [p for module in modules for p in module.parameters() if p.requires_grad])
