"""What the UNet is asked in training, and what its answers cost: the config's choice among diffusion.formulas.

All randomness is a function of the seed and the sample's index.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import formulas, noise
from dreamloom.train.diffusion.rng import stream_key


@dataclass(frozen=True)
class Question:
    """A batch of noisy latents, and what the UNet should say of them."""

    noisy: Tensor
    """[B, C, h, w], channels last."""
    times: Tensor
    """Timesteps, int64 [B]."""
    kept: Tensor
    """ᾱ at these timesteps, [B]."""
    wanted: Tensor
    """The noise, or v, [B, C, h, w]."""


class Objective:
    """Asks and judges.

    Args:
        prediction: epsilon or v_prediction.
        alphas_cumprod: ᾱ of each timestep, [T], on the device of the latents.
    """

    def __init__(self, config: TrainConfig, prediction: str, alphas_cumprod: Tensor) -> None:
        self.config = config
        self.prediction = prediction
        self.alphas_cumprod = alphas_cumprod
        last = len(alphas_cumprod) - 1 if config.max_timestep is None else config.max_timestep
        self.count = last + 1 - config.min_timestep
        names = ("noise", "offset", "perturbation", "timestep")
        self.streams = {name: stream_key(config.seed, name) for name in names}
        self.octaves = [stream_key(config.seed, "pyramid", octave) for octave in range(16)]

    def ask(self, latents: Tensor, indices: Tensor) -> Question:
        """Noises latents [B, C, h, w]; `indices` are those of the samples, int64 [B], on the latents' device."""
        config = self.config
        added = self._noise(indices, tuple(latents.shape[1:]))
        times = noise.sample_timesteps(self.streams["timestep"], indices, self.count, config.min_timestep)
        kept = self.alphas_cumprod[times]
        mixed = added
        if config.input_perturbation:
            extra = noise.normal(self.streams["perturbation"], indices, tuple(latents.shape[1:]))
            mixed = formulas.perturb_noise(added, extra, config.input_perturbation)
        noisy = formulas.add_noise(latents, mixed, kept).contiguous(memory_format=torch.channels_last)
        return Question(noisy, times, kept, formulas.prediction_target(self.prediction, latents, added, kept))

    def judge(self, answer: Tensor, question: Question, scales: Tensor, inside: Tensor | None) -> Tensor:
        """The mean loss of the UNet's answer, a single number.

        Args:
            scales: what each sample's loss is multiplied by, [B].
            inside: see objective.error.
        """
        config = self.config
        errors = formulas.sample_losses(answer, question.wanted, config.huber_delta, inside) * scales
        if config.min_snr_gamma is not None:
            errors = errors * formulas.min_snr_weight(self.prediction, question.kept, config.min_snr_gamma)
        if config.debiased_estimation_loss:
            errors = errors * formulas.debiased_estimation_weight(self.prediction, question.kept)
        return errors.mean()

    def _noise(self, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
        config = self.config
        channels, height, width = shape
        added = noise.normal(self.streams["noise"], indices, shape)
        if config.multires_noise_discount:
            coarser = [
                noise.normal(key, indices, (channels, *size))
                for key, size in zip(self.octaves, formulas.multires_noise_sizes(height, width), strict=False)
            ]
            added = formulas.add_multires_noise(added, coarser, config.multires_noise_discount)
        if config.noise_offset:
            offset = noise.normal(self.streams["offset"], indices, (channels, 1, 1))
            added = formulas.add_offset_noise(added, offset, config.noise_offset)
        return added
