"""The training objective: noise in, target and loss out. Pure functions; B is the batch, C, h, w a latent's shape."""

from collections.abc import Sequence

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


def prediction_target(prediction_type: str, latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """What the UNet should say, [B, C, h, w]: the noise, or v = √ᾱ·noise − √(1−ᾱ)·latents (arXiv 2202.00512)."""
    if prediction_type == EPSILON:
        return noise
    return _wide(alphas_cumprod.sqrt()) * noise - _wide((1 - alphas_cumprod).sqrt()) * latents


def add_offset_noise(noise: Tensor, offset: Tensor, strength: float) -> Tensor:
    """Adds noise that is constant over each channel, so that brightness is learned (N. Guttenberg 2023).

    Args:
        noise: [B, C, h, w].
        offset: standard normal, [B, C, 1, 1].
    """
    return noise + strength * offset


def multires_noise_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """The sizes of pyramid noise below the whole: halved until a side is 1."""
    sizes = []
    while min(height, width) > 1:
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


def add_multires_noise(noise: Tensor, coarser: Sequence[Tensor], discount: float) -> Tensor:
    """Adds coarser noise, each octave `discount` times as strong as the one before (J. Whitaker 2023, multi-resolution
    noise), and scales each sample back to its deviation of 1.

    Args:
        noise: [B, C, h, w].
        coarser: standard normal, [B, C, h', w'] for each of `octaves`.
    """
    total = noise
    for octave, drawn in enumerate(coarser, start=1):
        total = total + discount**octave * F.interpolate(drawn, noise.shape[2:], mode="bilinear", align_corners=False)
    return total / total.std(dim=(1, 2, 3), keepdim=True)


def perturb_noise(noise: Tensor, extra: Tensor, strength: float) -> Tensor:
    """The noise that is added, when the noise that is asked for is another: Ning et al. 2023, arXiv 2301.11706.

    Args:
        extra: standard normal, of the noise's shape.
    """
    return noise + strength * extra


def min_snr_weight(prediction_type: str, alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Weight of each sample's loss, [B]: min(SNR, γ) on the error of the image (arXiv 2303.09556, section 3.4).

    The error of epsilon is SNR times that of the image, the error of v is SNR + 1 times; so the weights are
    min(SNR, γ)/SNR and min(SNR, γ)/(SNR + 1).
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=gamma) / (snr if prediction_type == EPSILON else snr + 1)


def debiased_estimation_weight(prediction_type: str, alphas_cumprod: Tensor) -> Tensor:
    """Weight of each sample's loss, [B]: √SNR on the image's error, 1/√SNR on that of epsilon (arXiv 2310.08442).

    For v it is √SNR/(SNR + 1), as in min_snr_weight; some trainers take 1/(SNR + 1), which weighs the image by 1.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.sqrt() / (snr if prediction_type == EPSILON else snr + 1)


def sample_losses(predicted: Tensor, target: Tensor, huber_delta: float | None, mask: Tensor | None = None) -> Tensor:
    """Mean error of each sample, float32 [B]: squared, or Huber's, scaled so that a large δ gives the squared one.

    Args:
        mask: which cells count, 0 or 1, [B, h, w]; none: all.
    """
    predicted, target = predicted.float(), target.float()
    if huber_delta is None:
        losses = F.mse_loss(predicted, target, reduction="none")
    else:
        losses = 2 * F.huber_loss(predicted, target, reduction="none", delta=huber_delta)
    if mask is None:
        return losses.mean(dim=(1, 2, 3))
    return (losses.mean(dim=1) * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]
