"""What an objective is, and what it is given of each batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Protocol

import torch
from torch import Tensor

from dreamloom.train.data.loader import LoadedBatch
from dreamloom.train.model.text import Condition, Text
from dreamloom.train.objectives.noise_process import NoisyBatch


@dataclass(frozen=True)
class ForwardPass:
    """A batch after its way through the model. Tensors lie on the model's device, but for those of `batch`."""

    batch: LoadedBatch
    """The batch as it was loaded, on the CPU."""
    indices: Tensor
    """The run's index of each image, int64 [B]; all randomness is a function of the seed and these."""
    noisy: NoisyBatch
    """What the denoiser saw, and what it should predict."""
    condition: Condition
    """What else the denoiser was given."""
    predicted: Tensor
    """What the denoiser predicted, [B, C, h, w]."""
    loss_scales: Tensor
    """Factor of each image's loss, float32 [B]; 0 for padding."""
    loss_mask: Tensor | None
    """How much each pixel of the latents counts, float32 [B, h, w]; None: all alike."""

    def select(self, rows: Tensor) -> "ForwardPass":
        """Returns the pass of some images: all but `batch`, which stays whole.

        Args:
            rows: their places in the batch, int64, on the model's device.
        """
        noisy = self.noisy
        return ForwardPass(
            self.batch,
            self.indices[rows],
            replace(
                noisy,
                latents=noisy.latents[rows],
                timesteps=noisy.timesteps[rows],
                alphas_cumprod=noisy.alphas_cumprod[rows],
                target=noisy.target[rows],
            ),
            self.condition.map(itemgetter(rows)),
            self.predicted[rows],
            self.loss_scales[rows],
            None if self.loss_mask is None else self.loss_mask[rows],
        )


class Teacher(Protocol):
    """The base model, to be asked what it predicts."""

    precision: torch.dtype
    """Of the computation."""

    def predict(self, forward: ForwardPass, text: Text) -> Tensor:
        """Predicts from what the denoiser saw, [B, C, h, w], without gradients.

        Args:
            forward: the batch.
            text: its captions or others, as TextCache gives them, on the model's device.
        """


MakeTeacher = Callable[[], Teacher]
"""Makes the base model, once for all objectives that ask for it."""


class Objective(Protocol):
    """A part of the loss. Objectives add up; each weighs its own part."""

    def loss(self, forward: ForwardPass) -> Tensor:
        """Computes the sum of the losses of a batch's images, a scalar, without waiting for the device.

        One that replaces a share of another's loss returns the difference. One that needs further predictions calls the
        model it was made with.
        """
