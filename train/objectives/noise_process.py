"""The noise process: noisy latents, and what the denoiser should predict from them.

The formulas are in dreamloom.train.diffusion.formulas; this module applies those that the config asks for. All
randomness is a function of the seed and the sample's index.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import formulas, noise
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.diffusion.schedules import NoiseSchedule


@dataclass(frozen=True)
class NoisyBatch:
    """Noisy latents, and what the denoiser should predict from them."""

    latents: Tensor
    """[B, C, h, w], channels last."""
    timesteps: Tensor
    """int64 [B]."""
    alphas_cumprod: Tensor
    """ᾱ at these timesteps, [B]."""
    target: Tensor
    """The noise, or v, [B, C, h, w]."""
    num_timesteps: int
    """T, of the noise schedule."""


class NoiseProcess:
    """Adds noise to latents.

    Args:
        config: which noise, at which timesteps.
        schedule: the model's, on the device of the latents.
        total_images: images of the run as it is planned, over which a timestep curriculum reaches.
    """

    def __init__(self, config: TrainConfig, schedule: NoiseSchedule, total_images: int) -> None:
        self.config = config
        self.schedule = schedule
        self.total_images = total_images
        names = ("noise", "offset", "perturbation", "timestep", "embedding")
        self.streams = {name: stream_key(config.seed, name) for name in names}
        self.octaves = [stream_key(config.seed, "pyramid", octave) for octave in range(16)]

    def add_noise(self, latents: Tensor, indices: Tensor) -> NoisyBatch:
        """Adds noise to latents.

        Args:
            latents: [B, C, h, w].
            indices: the samples' indices, int64 [B], on the latents' device.
        """
        config = self.config
        sampled = self._sample_noise(indices, tuple(latents.shape[1:]))
        height, width = latents.shape[2:]
        timesteps = self.schedule.sample(config, self.streams["timestep"], indices, self.total_images, height * width)
        added = sampled
        if config.input_perturbation:
            extra = noise.normal(self.streams["perturbation"], indices, tuple(latents.shape[1:]))
            added = formulas.perturb_noise(sampled, extra, config.input_perturbation)
        noisy = self.schedule.add_noise(latents, added, timesteps).contiguous(memory_format=torch.channels_last)
        target = self.schedule.target(latents, sampled, timesteps)
        alphas_cumprod = self.schedule.alphas_cumprod_at(timesteps)
        return NoisyBatch(noisy, timesteps, alphas_cumprod, target, self.schedule.num_timesteps)

    def perturb_embeddings(self, encoder_hidden_states: Tensor, indices: Tensor) -> Tensor:
        """Adds noise to what the denoiser sees of the captions, if the config asks for it.

        Args:
            encoder_hidden_states: [B, L, D].
            indices: the samples' indices, int64 [B].
        """
        if not self.config.embedding_perturbation:
            return encoder_hidden_states
        extra = noise.normal(self.streams["embedding"], indices, tuple(encoder_hidden_states.shape[1:]))
        return formulas.perturb_embeddings(encoder_hidden_states, extra, self.config.embedding_perturbation)

    def _sample_noise(self, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
        config = self.config
        channels, height, width = shape
        sampled = noise.normal(self.streams["noise"], indices, shape)
        if config.multires_noise_discount:
            coarser = [
                noise.normal(key, indices, (channels, *size))
                for key, size in zip(self.octaves, formulas.multires_noise_sizes(height, width), strict=False)
            ]
            sampled = formulas.add_multires_noise(sampled, coarser, config.multires_noise_discount)
        if config.noise_offset:
            offset = noise.normal(self.streams["offset"], indices, (channels, 1, 1))
            sampled = formulas.add_offset_noise(sampled, offset, config.noise_offset)
        return sampled
