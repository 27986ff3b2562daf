"""Losses of each predicted value. A new one is a function, and a line in LOSSES."""

from collections.abc import Callable, Mapping

from torch import Tensor

from dreamloom.train.diffusion import formulas
from dreamloom.train.objectives.noise_process import NoisyBatch
from dreamloom.train.settings.loss import LossSettings

Loss = Callable[[Tensor, Tensor, NoisyBatch], Tensor]
"""Computes the loss of each value from the errors, both [B, C, h, w]; from δ of each sample, [B]; and the batch."""


def _mse(errors: Tensor, deltas: Tensor, noisy: NoisyBatch) -> Tensor:
    return errors**2


def _huber(errors: Tensor, deltas: Tensor, noisy: NoisyBatch) -> Tensor:
    return formulas.huber_loss(errors, deltas)


def _pseudo_huber(errors: Tensor, deltas: Tensor, noisy: NoisyBatch) -> Tensor:
    return formulas.pseudo_huber_loss(errors, deltas)


def _smooth_l1(errors: Tensor, deltas: Tensor, noisy: NoisyBatch) -> Tensor:
    return formulas.smooth_l1_loss(errors, deltas)


def _mse_huber(errors: Tensor, deltas: Tensor, noisy: NoisyBatch) -> Tensor:
    """EveryDream 2's, whose Huber loss is torch's: half of ours."""
    huber = formulas.huber_loss(errors, deltas) / 2
    return formulas.mix_losses(huber, errors**2, noisy.timesteps, noisy.num_timesteps)


def _huber_mse(errors: Tensor, deltas: Tensor, noisy: NoisyBatch) -> Tensor:
    huber = formulas.huber_loss(errors, deltas) / 2
    return formulas.mix_losses(errors**2, huber, noisy.timesteps, noisy.num_timesteps)


LOSSES: Mapping[str, Loss] = {
    "mse": _mse,
    "huber": _huber,
    "pseudo_huber": _pseudo_huber,
    "smooth_l1": _smooth_l1,
    "mse_huber": _mse_huber,
    "huber_mse": _huber_mse,
}
"""TrainConfig.loss_type → the loss."""


def value_losses(config: LossSettings, predicted: Tensor, target: Tensor, noisy: NoisyBatch) -> Tensor:
    """Computes the loss of each predicted value.

    Args:
        config: which loss.
        predicted: the denoiser's output, [B, C, h, w].
        target: what it should be, [B, C, h, w].
        noisy: what it was predicted from.

    Returns:
        float32 [B, C, h, w].
    """
    delta = 1.0 if config.huber_delta is None else config.huber_delta
    timesteps, alphas_cumprod = noisy.timesteps, noisy.alphas_cumprod
    deltas = formulas.huber_deltas(config.huber_schedule, delta, timesteps, alphas_cumprod, noisy.num_timesteps)
    return LOSSES[config.loss_type](predicted.float() - target.float(), deltas, noisy)
