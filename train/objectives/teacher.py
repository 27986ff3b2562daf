"""The base model as it was before the first step, to be asked what it predicts."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from dreamloom.base.models.device import choose_precision
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.device import autocast
from dreamloom.train.model.family import changing_text_encoders
from dreamloom.train.model.lora import without_adapters
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Text
from dreamloom.train.objectives.objective import ForwardPass


class BaseModelTeacher:
    """Predicts as the base does. With LoRA it is the model without its adapters, else a copy in the run's precision.

    Args:
        model: the model before the first step.
        config: the run's.
    """

    def __init__(self, model: Model, config: TrainConfig) -> None:
        self.precision = choose_precision(config.precision, model.device)
        self.model = model
        if config.lora_rank is None:
            changing = (model.family.denoiser, *changing_text_encoders(config, model.family))
            copies = {name: self._frozen_copy(model.components[name]) for name in changing}
            self.model = replace(model, components={**model.components, **copies}, compiled_denoiser=None)

    @torch.no_grad()
    def predict(self, forward: ForwardPass, text: Text) -> Tensor:
        """See `Teacher`."""
        with without_adapters(self.model):
            return predict(self.model, self.precision, forward, text)

    def _frozen_copy(self, module: nn.Module) -> nn.Module:
        return copy.deepcopy(module).to(self.model.device, self.precision).requires_grad_(False)


def predict(model: Model, precision: torch.dtype, forward: ForwardPass, text: Text) -> Tensor:
    """Computes a model's prediction for a batch's noisy latents and any captions, [B, C, h, w].

    Args:
        model: the one that is trained, or the base.
        precision: of the computation.
        forward: the batch.
        text: captions as TextCache gives them, on the model's device.
    """
    with autocast(model.device, precision):
        condition = model.encode(text, forward.condition.sizes)
        return model.predict(forward.noisy.latents, forward.noisy.timesteps, condition)
