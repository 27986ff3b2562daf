"""The base model as it was before the first step, to be asked what it predicts."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from dreamloom.base.device import choose_precision
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.device import autocast
from dreamloom.train.model.lora import without_adapters
from dreamloom.train.model.model import Model
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
            text_encoder = self._frozen_copy(model.text_encoder) if config.trains_text else model.text_encoder
            unet = self._frozen_copy(model.unet)
            self.model = replace(model, unet=unet, text_encoder=text_encoder, compiled_unet=None)

    @torch.no_grad()
    def predict(self, forward: ForwardPass, text: Tensor) -> Tensor:
        """See `Teacher`."""
        with without_adapters(self.model):
            return predict(self.model, self.precision, forward, text)

    def _frozen_copy(self, module: nn.Module) -> nn.Module:
        return copy.deepcopy(module).to(self.precision).requires_grad_(False)


def predict(model: Model, precision: torch.dtype, forward: ForwardPass, text: Tensor) -> Tensor:
    """Computes a model's prediction for a batch's noisy latents and any captions, [B, C, h, w].

    Args:
        model: the one that is trained, or the base.
        precision: of the computation.
        forward: the batch.
        text: captions as TextCache gives them, on the model's device.
    """
    with autocast(model.device, precision):
        states = text.float() if text.is_floating_point() else model.encode_text(text)
        return model.predict(forward.noisy.latents, forward.noisy.timesteps, states)
