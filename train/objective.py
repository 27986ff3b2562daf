"""The training objective: noise in, target and loss out. Pure functions; B is the batch, C, h, w a latent's shape."""

import torch.nn.functional as F
from torch import Tensor

EPSILON = "epsilon"
V_PREDICTION = "v_prediction"


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Shifts and scales √ᾱ so that the last is 0 and the first stays: Lin et al. 2023, arXiv 2305.08891, algorithm 1.

    Args:
        alphas_cumprod: ᾱ of each timestep, [T].
    """
    root = alphas_cumprod.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * first / (first - last)) ** 2


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """√ᾱ·latents + √(1−ᾱ)·noise; latents and noise [B, C, h, w], alphas_cumprod [B]."""
    return _wide(alphas_cumprod.sqrt()) * latents + _wide((1 - alphas_cumprod).sqrt()) * noise


def target(prediction: str, latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """What the UNet should say, [B, C, h, w]: the noise, or v = √ᾱ·noise − √(1−ᾱ)·latents (arXiv 2202.00512)."""
    if prediction == EPSILON:
        return noise
    return _wide(alphas_cumprod.sqrt()) * noise - _wide((1 - alphas_cumprod).sqrt()) * latents


def with_offset(noise: Tensor, offset: Tensor, strength: float) -> Tensor:
    """Adds noise that is constant over each channel, so that brightness is learned (N. Guttenberg 2023).

    Args:
        noise: [B, C, h, w].
        offset: standard normal, [B, C, 1, 1].
    """
    return noise + strength * offset


def min_snr_weight(prediction: str, alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Weight of each sample's loss, [B]: min(SNR, γ) on the error of the picture (arXiv 2303.09556, section 3.4).

    The error of epsilon is SNR times that of the picture, the error of v is SNR + 1 times; so the weights are
    min(SNR, γ)/SNR and min(SNR, γ)/(SNR + 1).
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=gamma) / (snr if prediction == EPSILON else snr + 1)


def error(predicted: Tensor, wanted: Tensor, huber: float | None) -> Tensor:
    """Mean error of each sample, float32 [B]: squared, or Huber's, scaled so that a large δ gives the squared one."""
    predicted, wanted = predicted.float(), wanted.float()
    if huber is None:
        losses = F.mse_loss(predicted, wanted, reduction="none")
    else:
        losses = 2 * F.huber_loss(predicted, wanted, reduction="none", delta=huber)
    return losses.mean(dim=(1, 2, 3))


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]
