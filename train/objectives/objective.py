"""What an objective is, and what it is given of each batch."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dreamloom.train.data.loader import LoadedBatch
from dreamloom.train.objectives.noise_process import NoisyBatch


@dataclass(frozen=True)
class ForwardPass:
    """A batch after its way through the model. Tensors lie on the model's device, but for those of `batch`."""

    batch: LoadedBatch
    """The batch as it was loaded, on the CPU."""
    indices: Tensor
    """The run's index of each image, int64 [B]; all randomness is a function of the seed and these."""
    noisy: NoisyBatch
    """What the UNet saw, and what it should predict."""
    encoder_hidden_states: Tensor
    """What the UNet saw of the captions, [B, L, D]."""
    predicted: Tensor
    """What the UNet predicted, [B, C, h, w]."""
    loss_scales: Tensor
    """Factor of each image's loss, float32 [B]; 0 for padding."""
    loss_mask: Tensor | None
    """How much each pixel of the latents counts, float32 [B, h, w]; None: all alike."""


class Objective(Protocol):
    """A part of the loss. Objectives add up; each weighs its own part."""

    def loss(self, forward: ForwardPass) -> Tensor:
        """Computes the sum of the losses of a batch's images, a scalar, without waiting for the device.

        One that replaces a share of another's loss returns the difference. One that needs further predictions calls the
        model it was made with.
        """
