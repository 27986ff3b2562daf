"""Formulas of the training objective: noisy latents, targets, loss and loss weights, all pure functions.

In shapes, B is the batch, and C, h and w are the channels, height and width of a latent.
"""

import math
from collections.abc import Sequence

import torch
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


def perturb_embeddings(embeddings: Tensor, perturbation: Tensor, strength: float) -> Tensor:
    """Adds noise of the standard deviation γ/√D to text embeddings: Chen et al. 2024, arXiv 2405.20494.

    Args:
        embeddings: [B, L, D].
        perturbation: standard normal, [B, L, D].
        strength: γ.
    """
    return embeddings + strength / math.sqrt(embeddings.shape[2]) * perturbation


def curriculum_timesteps(progress: Tensor, initial: int, final: int, power: float) -> Tensor:
    """Computes a timestep that falls as a run goes on: final + (initial − final)·(1 − p)^power.

    So training begins with what much noise leaves to see, the composition, and comes to the details later, as
    damian0815's EveryDream 2 has it.

    Args:
        progress: share p of the run that is done, [B].
        initial: the timestep at p = 0.
        final: the timestep at p = 1.
        power: 1: evenly; greater: faster at first.

    Returns:
        int64 [B].
    """
    return (final + (initial - final) * (1 - progress) ** power).round().long()


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
    `min_snr_weight`. `kohya_debiased_v_weight` is another for v.

    Args:
        prediction_type: EPSILON or V_PREDICTION.
        alphas_cumprod: ᾱ at each sample's timestep, [B].

    Returns:
        The weights, [B].
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.sqrt() / (snr if prediction_type == EPSILON else snr + 1)


def kohya_debiased_v_weight(alphas_cumprod: Tensor) -> Tensor:
    """Computes 1/(SNR + 1), which sd-scripts takes as the debiased weight of v, with SNR up to 1000.

    Args:
        alphas_cumprod: ᾱ at each sample's timestep, [B].

    Returns:
        The weights, [B].
    """
    return 1 / ((alphas_cumprod / (1 - alphas_cumprod)).clamp(max=1000) + 1)


def flow_sigmas(shares: Tensor, kind: str, logit_mean: float, logit_std: float, mode_scale: float) -> Tensor:
    """Computes the shares σ of noise at which a flow is trained: arXiv 2403.03206, section 3.1.

    Args:
        shares: uniform in (0, 1), [B].
        kind: "logit_normal": the logistic function of normal numbers, by their quantiles; "mode": equation 20, heavy
            in the middle or at the ends; "uniform".
        logit_mean: of the normal numbers; above 0: more noise.
        logit_std: their deviation.
        mode_scale: s of equation 20.

    Returns:
        [B].
    """
    if kind == "logit_normal":
        return torch.sigmoid(logit_mean + logit_std * math.sqrt(2) * torch.erfinv(2 * shares - 1))
    if kind == "mode":
        return 1 - shares - mode_scale * (torch.cos(math.pi / 2 * shares) ** 2 - 1 + shares)
    return shares


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """Computes ασ/(1 + (α − 1)σ), which makes the signal of an image α times as large as weak: section 5.3.2."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def cosmap_weight(sigmas: Tensor) -> Tensor:
    """Computes 2/(π(1 − 2σ + 2σ²)), the density of CosMap of arXiv 2403.03206, as diffusers weighs losses by it.

    Args:
        sigmas: shares of noise, [B].
    """
    return 2 / (math.pi * (1 - 2 * sigmas + 2 * sigmas**2))


def interpolated_weight(timesteps: Tensor, weights: Sequence[float], num_timesteps: int) -> Tensor:
    """Interpolates weights, which stand evenly spaced from the first timestep to the last, at some timesteps.

    Args:
        timesteps: int64 [B].
        weights: two or more.
        num_timesteps: T.

    Returns:
        The weights, [B].
    """
    place = timesteps.float() * ((len(weights) - 1) / (num_timesteps - 1))
    distances = torch.arange(len(weights), device=timesteps.device) - place[:, None]
    return ((1 - distances.abs()).clamp(min=0) * torch.tensor(weights, device=timesteps.device)).sum(1)


def huber_deltas(schedule: str, delta: float, timesteps: Tensor, alphas_cumprod: Tensor, num_timesteps: int) -> Tensor:
    """Computes δ of each sample, as sd-scripts' `huber_schedule` does.

    Args:
        schedule: "constant": δ; "exponential": δ^(t/T), from 1 to δ; "snr": (1−δ)/(1+σ)² + δ with σ² = 1/SNR.
        delta: δ.
        timesteps: int64 [B].
        alphas_cumprod: ᾱ at these timesteps, [B].
        num_timesteps: T.

    Returns:
        [B].
    """
    if schedule == "exponential":
        return delta ** (timesteps / num_timesteps)
    if schedule == "snr":
        sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
        return (1 - delta) / (1 + sigmas) ** 2 + delta
    return torch.full_like(alphas_cumprod, delta)


def huber_loss(errors: Tensor, deltas: Tensor) -> Tensor:
    """Computes Huber's loss, scaled so that a large δ gives the squared error: twice torch's.

    Args:
        errors: prediction − target, [B, C, h, w].
        deltas: δ of each sample, [B].
    """
    size, delta = errors.abs(), _per_sample(deltas)
    return torch.where(size < delta, errors**2, 2 * delta * (size - 0.5 * delta))


def pseudo_huber_loss(errors: Tensor, deltas: Tensor) -> Tensor:
    """Computes 2δ(√(e² + δ²) − δ), sd-scripts' "huber": e² where e is small, 2δ|e| where it is large.

    Args:
        errors: prediction − target, [B, C, h, w].
        deltas: δ of each sample, [B].
    """
    delta = _per_sample(deltas)
    return 2 * delta * ((errors**2 + delta**2).sqrt() - delta)


def smooth_l1_loss(errors: Tensor, deltas: Tensor) -> Tensor:
    """Computes 2(√(e² + δ²) − δ), sd-scripts' "smooth_l1": e²/δ where e is small, 2|e| where it is large.

    Args:
        errors: prediction − target, [B, C, h, w].
        deltas: δ of each sample, [B].
    """
    delta = _per_sample(deltas)
    return 2 * ((errors**2 + delta**2).sqrt() - delta)


def mix_losses(at_start: Tensor, at_end: Tensor, timesteps: Tensor, num_timesteps: int) -> Tensor:
    """Computes (1 − t/T)·at_start + t/T·at_end.

    Args:
        at_start: losses that count where there is little noise, [B, C, h, w].
        at_end: losses that count where there is much, [B, C, h, w].
        timesteps: int64 [B].
        num_timesteps: T.
    """
    share = _per_sample(timesteps / num_timesteps)
    return (1 - share) * at_start + share * at_end


def sample_losses(losses: Tensor, mask: Tensor | None = None) -> Tensor:
    """Averages the loss of each sample.

    Args:
        losses: of each value that was predicted, [B, C, h, w].
        mask: the weight w of each latent pixel, at least 0, [B, h, w]; None: all alike. The mean of losses e is
            Σw·e / Σw, so an image counts the same however much of it is masked.

    Returns:
        [B].
    """
    if mask is None:
        return losses.mean(dim=(1, 2, 3))
    return (losses.mean(dim=1) * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))


def _per_sample(values: Tensor) -> Tensor:
    """Brings [B] to [B, 1, 1, 1]."""
    return values[:, None, None, None]
