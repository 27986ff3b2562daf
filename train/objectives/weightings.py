"""Weightings of the denoising loss over the timesteps. A new one is a function, and a line in WEIGHTINGS."""

from collections.abc import Callable, Mapping

from torch import Tensor

from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import formulas
from dreamloom.train.objectives.noise_process import NoisyBatch

Weighting = Callable[[TrainConfig, str, NoisyBatch], Tensor]
"""Computes the weight of each sample's loss, [B], from the config, the prediction type and the noisy batch."""


def _min_snr(config: TrainConfig, prediction_type: str, noisy: NoisyBatch) -> Tensor:
    assert config.min_snr_gamma is not None
    return formulas.min_snr_weight(prediction_type, noisy.alphas_cumprod, config.min_snr_gamma)


def _debiased_estimation(config: TrainConfig, prediction_type: str, noisy: NoisyBatch) -> Tensor:
    if config.debiased_v_weight == "kohya" and prediction_type == formulas.V_PREDICTION:
        return formulas.kohya_debiased_v_weight(noisy.alphas_cumprod)
    return formulas.debiased_estimation_weight(prediction_type, noisy.alphas_cumprod)


def _timestep_weights(config: TrainConfig, prediction_type: str, noisy: NoisyBatch) -> Tensor:
    return formulas.interpolated_weight(noisy.timesteps, config.timestep_weights, noisy.num_timesteps)


def _flow(config: TrainConfig, prediction_type: str, noisy: NoisyBatch) -> Tensor:
    sigmas = noisy.timesteps / noisy.num_timesteps
    return formulas.cosmap_weight(sigmas) if config.flow_weighting == "cosmap" else sigmas**-2


WEIGHTINGS: Mapping[str, Weighting] = {
    "min_snr_gamma": _min_snr,
    "debiased_estimation_loss": _debiased_estimation,
    "timestep_weights": _timestep_weights,
    "flow_weighting": _flow,
}
"""Field of TrainConfig that turns a weighting on → the weighting. Those that are on multiply."""


def chosen_weightings(config: TrainConfig) -> list[Weighting]:
    """Returns the weightings that a config turns on."""
    return [weighting for field, weighting in WEIGHTINGS.items() if getattr(config, field)]
