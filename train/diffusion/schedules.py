"""The noise schedules: how much noise there is at each timestep, and what a model predicts of it."""

import math
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from dreamloom.train.diffusion import formulas
from dreamloom.train.diffusion.noise import sample_shares, sample_timesteps
from dreamloom.train.settings.loss import LossSettings

FLOW = "flow"
"""The prediction of a rectified flow: noise − latents."""
_FULL_SIZE = 128 * 128
"""Latent pixels of 1024 × 1024 pixels, for which a base's shift is made."""


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

    def sample(self, config: LossSettings, key: int, indices: Tensor, total_images: int, latent_pixels: int) -> Tensor:
        """Chooses the timestep at which each sample is trained, a function of the key and its index.

        Args:
            config: which timesteps are trained.
            key: names the stream of random numbers.
            indices: the samples' indices, int64 [B], on its device.
            total_images: images of the run as it is planned, over which a timestep curriculum reaches.
            latent_pixels: height times width of the latents.

        Returns:
            [B].
        """

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

    def sample(self, config: LossSettings, key: int, indices: Tensor, total_images: int, latent_pixels: int) -> Tensor:
        """See NoiseSchedule."""
        last = self.num_timesteps - 1 if config.max_timestep is None else config.max_timestep
        first: Tensor | int = config.min_timestep
        if config.timestep_curriculum_power:
            progress = (indices / total_images).clamp(max=1)
            span = (config.initial_min_timestep, config.min_timestep)
            first = formulas.curriculum_timesteps(progress, *span, config.timestep_curriculum_power)
        return sample_timesteps(key, indices, last + 1 - first, first)

    def spread(self, stratum: int, strata: int, offset: float) -> float:
        """See NoiseSchedule."""
        count = self.num_timesteps
        return min(count - 1, int((stratum + offset) * count / strata))

    def timesteps(self, values: list[float]) -> Tensor:
        """See NoiseSchedule."""
        return torch.tensor(values, dtype=torch.int64, device=self.device)


@dataclass(frozen=True)
class RectifiedFlow:
    """A rectified flow (Liu et al. 2022, arXiv 2209.03003), as Esser et al. 2024, arXiv 2403.03206, train it.

    Timesteps are float32, 1000 times the share σ of noise in (1 − σ)·latents + σ·noise.

    Args:
        shift: α of the base's scheduler, by which σ becomes ασ/(1 + (α − 1)σ) at 1024 × 1024 pixels.
        place: any tensor on its device.
    """

    shift: float
    place: Tensor

    @property
    def prediction_type(self) -> str:
        """See NoiseSchedule."""
        return FLOW

    @property
    def num_timesteps(self) -> int:
        """See NoiseSchedule."""
        return 1000

    @property
    def device(self) -> torch.device:
        """See NoiseSchedule."""
        return self.place.device

    def to(self, device: torch.device) -> Self:
        """See NoiseSchedule."""
        return replace(self, place=self.place.to(device))

    def alphas_cumprod_at(self, timesteps: Tensor) -> Tensor:
        """See NoiseSchedule."""
        sigmas = timesteps / self.num_timesteps
        return (1 - sigmas) ** 2 / ((1 - sigmas) ** 2 + sigmas**2)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """See NoiseSchedule."""
        sigmas = (timesteps / self.num_timesteps)[:, None, None, None]
        return (1 - sigmas) * latents + sigmas * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """See NoiseSchedule: the velocity from the image to the noise."""
        return noise - latents

    def sample(self, config: LossSettings, key: int, indices: Tensor, total_images: int, latent_pixels: int) -> Tensor:
        """See NoiseSchedule. The shift grows with the sides, as larger images need more noise (section 5.3.2)."""
        sigmas = formulas.flow_sigmas(
            sample_shares(key, indices),
            config.timestep_sampling,
            config.logit_mean,
            config.logit_std,
            config.mode_scale,
        )
        shift = self.shift * math.sqrt(latent_pixels / _FULL_SIZE)
        shift = shift if config.timestep_shift is None else config.timestep_shift
        return (formulas.shift_sigmas(sigmas, shift) * self.num_timesteps).float()

    def spread(self, stratum: int, strata: int, offset: float) -> float:
        """See NoiseSchedule: of σ itself, without a shift."""
        return self.num_timesteps * (stratum + offset) / strata

    def timesteps(self, values: list[float]) -> Tensor:
        """See NoiseSchedule."""
        return torch.tensor(values, dtype=torch.float32, device=self.device)
