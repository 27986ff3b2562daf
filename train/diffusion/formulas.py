"""Formulas of the training objective: noisy latents, targets, loss and loss weights, all pure functions.

In shapes, B is the batch, and C, h and w are the channels, height and width of a latent.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

EPSILON = "epsilon"
V_PREDICTION = "v_prediction"


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Rescales a noise schedule so that the last timestep is pure noise and the first stays as it is.

    √ᾱ is shifted and scaled: Lin et al. 2023, arXiv 2305.08891, algorithm 1.

    Args:
        alphas_cumprod: ᾱ of each timestep, [T].

    Returns:
        The rescaled ᾱ, [T].
    """
    root = alphas_cumprod.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * first / (first - last)) ** 2


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Computes √ᾱ·latents + √(1−ᾱ)·noise.

    Args:
        latents: [B, C, h, w].
        noise: [B, C, h, w].
        alphas_cumprod: ᾱ at each sample's timestep, [B].

    Returns:
        The noisy latents, [B, C, h, w].
    """
    return _per_sample(alphas_cumprod.sqrt()) * latents + _per_sample((1 - alphas_cumprod).sqrt()) * noise


def prediction_target(prediction_type: str, latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Computes what the UNet is trained to predict: the noise, or v = √ᾱ·noise − √(1−ᾱ)·latents (arXiv 2202.00512).

    Args:
        prediction_type: EPSILON or V_PREDICTION.
        latents: [B, C, h, w].
        noise: [B, C, h, w].
        alphas_cumprod: ᾱ at each sample's timestep, [B].

    Returns:
        The target, [B, C, h, w].
    """
    if prediction_type == EPSILON:
        return noise
    return _per_sample(alphas_cumprod.sqrt()) * noise - _per_sample((1 - alphas_cumprod).sqrt()) * latents


def add_offset_noise(noise: Tensor, offset: Tensor, strength: float) -> Tensor:
    """Adds noise that is constant over each channel, so that brightness is learned (N. Guttenberg 2023).

    Args:
        noise: standard normal, [B, C, h, w].
        offset: standard normal, [B, C, 1, 1].
        strength: the standard deviation of the added noise.
    """
    return noise + strength * offset


def multires_noise_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Lists the sizes of the coarser octaves of multi-resolution noise: halved, rounding up, until a side is 1."""
    sizes = []
    while min(height, width) > 1:
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


def add_multires_noise(noise: Tensor, octaves: Sequence[Tensor], discount: float) -> Tensor:
    """Adds coarser noise, and scales each sample back to a standard deviation of 1 (J. Whitaker 2023).

    Args:
        noise: standard normal, [B, C, h, w].
        octaves: standard normal, [B, C, h', w'] for each of `multires_noise_sizes`.
        discount: how strong each octave is, relative to the next finer one.
    """
    total = noise
    for power, octave in enumerate(octaves, start=1):
        total = total + discount**power * F.interpolate(octave, noise.shape[2:], mode="bilinear", align_corners=False)
    return total / total.std(dim=(1, 2, 3), keepdim=True)


def perturb_noise(noise: Tensor, perturbation: Tensor, strength: float) -> Tensor:
    """Computes the noise to add to the latents where the target stays the original noise: input perturbation.

    Ning et al. 2023, arXiv 2301.11706.

    Args:
        noise: standard normal, [B, C, h, w].
        perturbation: standard normal, [B, C, h, w].
        strength: the standard deviation of the perturbation.
    """
    return noise + strength * perturbation


def min_snr_weight(prediction_type: str, alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Computes the min-SNR weight of each sample's loss: arXiv 2303.09556, section 3.4.

    It is min(SNR, γ) on the error of the image. The error of epsilon is SNR times that of the image, the error of v is
    SNR + 1 times. So the weights are min(SNR, γ)/SNR and min(SNR, γ)/(SNR + 1).

    Args:
        prediction_type: EPSILON or V_PREDICTION.
        alphas_cumprod: ᾱ at each sample's timestep, [B].
        gamma: γ.

    Returns:
        The weights, [B].
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=gamma) / (snr if prediction_type == EPSILON else snr + 1)


def debiased_estimation_weight(prediction_type: str, alphas_cumprod: Tensor) -> Tensor:
    """Computes the weight of each sample's loss by debiased estimation: arXiv 2310.08442.

    It is √SNR on the error of the image, so 1/√SNR on that of epsilon and √SNR/(SNR + 1) on that of v, as in
    `min_snr_weight`. Some trainers take 1/(SNR + 1) for v, which weighs the error of the image by 1.

    Args:
        prediction_type: EPSILON or V_PREDICTION.
        alphas_cumprod: ᾱ at each sample's timestep, [B].

    Returns:
        The weights, [B].
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.sqrt() / (snr if prediction_type == EPSILON else snr + 1)


def sample_losses(predicted: Tensor, target: Tensor, huber_delta: float | None, mask: Tensor | None = None) -> Tensor:
    """Computes the mean error of each sample: squared, or Huber's.

    Args:
        predicted: the UNet's output, [B, C, h, w].
        target: [B, C, h, w].
        huber_delta: δ of the Huber loss, scaled so that a large δ gives the squared error; None: the squared error.
        mask: the weight w of each latent pixel, at least 0, [B, h, w]; None: all alike. The mean of errors e is
            Σw·e / Σw, so an image counts the same however much of it is masked.

    Returns:
        The losses, float32 [B].
    """
    predicted, target = predicted.float(), target.float()
    if huber_delta is None:
        losses = F.mse_loss(predicted, target, reduction="none")
    else:
        losses = 2 * F.huber_loss(predicted, target, reduction="none", delta=huber_delta)
    if mask is None:
        return losses.mean(dim=(1, 2, 3))
    return (losses.mean(dim=1) * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))


def _per_sample(values: Tensor) -> Tensor:
    """Brings [B] to [B, 1, 1, 1]."""
    return values[:, None, None, None]
