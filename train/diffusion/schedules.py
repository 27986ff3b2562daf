"""The noise schedules: how much noise there is at each timestep, and what a model predicts of it."""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from dreamloom.train.diffusion import formulas


class NoiseSchedule(Protocol):
    """A noise schedule with its tensors on one device. Timesteps are as the denoiser takes them."""

    @property
    def prediction_type(self) -> str:
        """What is predicted, in diffusers' words."""

    @property
    def num_timesteps(self) -> int:
        """T: timesteps lie from 0 up to it."""

    @property
    def device(self) -> torch.device:
        """Where its tensors lie."""

    def to(self, device: torch.device) -> Self:
        """Returns the schedule on a device."""

    def alphas_cumprod_at(self, timesteps: Tensor) -> Tensor:
        """Returns ᾱ at timesteps, [B]: the signal-to-noise ratio is ᾱ/(1 − ᾱ)."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mixes latents and noise, each [B, C, h, w], as at timesteps, [B]; returns [B, C, h, w]."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Computes what is to be predicted from that mixture, [B, C, h, w]."""

    def spread(self, stratum: int, strata: int, offset: float) -> float:
        """Returns the timestep at a share, from 0 to 1, of one of so many equal parts of the schedule's own time."""

    def timesteps(self, values: list[float]) -> Tensor:
        """Makes timesteps of what `spread` returned, on its device."""


@dataclass(frozen=True)
class DiscreteSchedule:
    """A schedule of T steps of a DDPM (Ho et al. 2020, arXiv 2006.11239). Timesteps are int64.

    Args:
        prediction_type: epsilon or v_prediction.
        alphas_cumprod: ᾱ of each timestep, float32 [T].
    """

    prediction_type: str
    alphas_cumprod: Tensor

    @property
    def num_timesteps(self) -> int:
        """See NoiseSchedule."""
        return len(self.alphas_cumprod)

    @property
    def device(self) -> torch.device:
        """See NoiseSchedule."""
        return self.alphas_cumprod.device

    def to(self, device: torch.device) -> Self:
        """See NoiseSchedule."""
        return replace(self, alphas_cumprod=self.alphas_cumprod.to(device))

    def alphas_cumprod_at(self, timesteps: Tensor) -> Tensor:
        """See NoiseSchedule."""
        return self.alphas_cumprod[timesteps]

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """See NoiseSchedule."""
        return formulas.add_noise(latents, noise, self.alphas_cumprod[timesteps])

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """See NoiseSchedule."""
        return formulas.prediction_target(self.prediction_type, latents, noise, self.alphas_cumprod[timesteps])

    def spread(self, stratum: int, strata: int, offset: float) -> float:
        """See NoiseSchedule."""
        count = self.num_timesteps
        return min(count - 1, int((stratum + offset) * count / strata))

    def timesteps(self, values: list[float]) -> Tensor:
        """See NoiseSchedule."""
        return torch.tensor(values, dtype=torch.int64, device=self.device)
