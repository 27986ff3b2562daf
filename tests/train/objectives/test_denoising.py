"""Noise, targets and weighted losses, against diffusers' schedulers."""

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.loader import LoadedBatch
from dreamloom.train.data.schedule import Batch
from dreamloom.train.diffusion import formulas
from dreamloom.train.objectives.denoising import Denoising
from dreamloom.train.objectives.noise_process import NoiseProcess, NoisyBatch
from dreamloom.train.objectives.objective import ForwardPass

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
INDICES = torch.arange(100, 106)


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, 8, 8, generator=generator), torch.randn(6, 4, 8, 8, generator=generator)


def make_noise_process(**changes: Any) -> NoiseProcess:
    config = TrainConfig(min_snr_gamma=None, **changes)
    return NoiseProcess(config, changes.get("prediction_type", "epsilon"), SCHEDULER.alphas_cumprod)


def loss(config: TrainConfig, predicted: torch.Tensor, noisy: NoisyBatch, scales: torch.Tensor) -> torch.Tensor:
    nothing = torch.empty(0)
    batch = LoadedBatch(Batch((64, 64), "", (), ()), nothing, nothing, INDICES, scales, None, nothing)
    return Denoising(config, formulas.EPSILON).loss(
        ForwardPass(batch, INDICES, noisy, nothing, predicted, scales, None)
    )


@pytest.mark.parametrize("prediction", [formulas.EPSILON, formulas.V_PREDICTION])
def test_noise_and_target_are_those_of_diffusers(prediction: str, tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    latents = tensors[0]
    batch = make_noise_process(prediction_type=prediction).add_noise(latents, INDICES)
    noise = batch.target
    if prediction == formulas.V_PREDICTION:
        wide = batch.alphas_cumprod[:, None, None, None]
        noise = (batch.target + (1 - wide).sqrt() * latents) / wide.sqrt()
        assert torch.allclose(SCHEDULER.get_velocity(latents, noise, batch.timesteps), batch.target, atol=1e-5)
    assert torch.allclose(SCHEDULER.add_noise(latents, noise, batch.timesteps), batch.latents, atol=1e-5)


def test_timesteps_keep_to_their_range(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    latents = tensors[0][:1].expand(2000, 4, 8, 8)
    timesteps = make_noise_process(min_timestep=200, max_timestep=299).add_noise(latents, torch.arange(2000)).timesteps
    assert set(timesteps.tolist()) == set(range(200, 300))
    assert timesteps.bincount()[200:].max() - timesteps.bincount()[200:].min() <= 2


def test_the_target_of_a_perturbed_input_is_the_unperturbed_noise(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    latents = tensors[0]
    plain = make_noise_process().add_noise(latents, INDICES)
    perturbed = make_noise_process(input_perturbation=0.1).add_noise(latents, INDICES)
    assert torch.equal(plain.target, perturbed.target) and torch.equal(plain.timesteps, perturbed.timesteps)
    extra = (perturbed.latents - plain.latents) / (0.1 * (1 - plain.alphas_cumprod).sqrt()[:, None, None, None])
    assert extra.std() == pytest.approx(1, abs=0.1) and abs(float((extra * plain.target).mean())) < 0.05


def test_a_samples_noise_depends_on_its_index_alone(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    process = make_noise_process(multires_noise_discount=0.5, noise_offset=0.1, input_perturbation=0.1)
    whole, part = process.add_noise(tensors[0], INDICES), process.add_noise(tensors[0][2:4], INDICES[2:4])
    for name in ("latents", "timesteps", "alphas_cumprod", "target"):
        assert torch.allclose(getattr(whole, name)[2:4], getattr(part, name), atol=1e-6)


def test_a_loss_scale_scales_its_own_sample(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    noisy = make_noise_process().add_noise(tensors[0], INDICES)
    losses = formulas.sample_losses(tensors[1], noisy.target, None)
    scales = torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5, 1.0])
    assert torch.allclose(loss(TrainConfig(min_snr_gamma=None), tensors[1], noisy, scales), (losses * scales).sum())


@pytest.mark.parametrize(
    ("changes", "weight"),
    [
        ({"min_snr_gamma": 5.0}, lambda snr: snr.clamp(max=5) / snr),
        ({"debiased_estimation_loss": True}, lambda snr: 1 / snr.sqrt()),
    ],
)
def test_the_weighting_is_the_one_that_is_turned_on(
    changes: dict[str, Any], weight: Any, tensors: tuple[torch.Tensor, torch.Tensor]
) -> None:
    noisy = make_noise_process().add_noise(tensors[0], INDICES)
    snr = noisy.alphas_cumprod / (1 - noisy.alphas_cumprod)
    losses = formulas.sample_losses(tensors[1], noisy.target, None) * weight(snr)
    assert torch.allclose(loss(TrainConfig.model_validate(changes), tensors[1], noisy, torch.ones(6)), losses.sum())
