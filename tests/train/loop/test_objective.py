"""The objective: noise, targets and weighted losses, against diffusers' schedulers."""

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import formulas
from dreamloom.train.loop.objective import Objective

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
INDICES = torch.arange(100, 106)


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, 8, 8, generator=generator), torch.randn(6, 4, 8, 8, generator=generator)


def make_objective(**changes: Any) -> Objective:
    return Objective(
        TrainConfig(min_snr_gamma=None, **changes), changes.get("prediction_type", "epsilon"), SCHEDULER.alphas_cumprod
    )


@pytest.mark.parametrize("prediction", [formulas.EPSILON, formulas.V_PREDICTION])
def test_noise_and_target_are_those_of_diffusers(prediction: str, tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    latents = tensors[0]
    batch = make_objective(prediction_type=prediction).add_noise(latents, INDICES)
    noise = batch.target
    if prediction == formulas.V_PREDICTION:
        wide = batch.alphas_cumprod[:, None, None, None]
        noise = (batch.target + (1 - wide).sqrt() * latents) / wide.sqrt()
        assert torch.allclose(SCHEDULER.get_velocity(latents, noise, batch.timesteps), batch.target, atol=1e-5)
    assert torch.allclose(SCHEDULER.add_noise(latents, noise, batch.timesteps), batch.latents, atol=1e-5)


def test_timesteps_keep_to_their_range(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    latents = tensors[0][:1].expand(2000, 4, 8, 8)
    timesteps = make_objective(min_timestep=200, max_timestep=299).add_noise(latents, torch.arange(2000)).timesteps
    assert set(timesteps.tolist()) == set(range(200, 300))
    assert timesteps.bincount()[200:].max() - timesteps.bincount()[200:].min() <= 2


def test_the_target_of_a_perturbed_input_is_the_unperturbed_noise(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    latents = tensors[0]
    plain = make_objective().add_noise(latents, INDICES)
    perturbed = make_objective(input_perturbation=0.1).add_noise(latents, INDICES)
    assert torch.equal(plain.target, perturbed.target) and torch.equal(plain.timesteps, perturbed.timesteps)
    extra = (perturbed.latents - plain.latents) / (0.1 * (1 - plain.alphas_cumprod).sqrt()[:, None, None, None])
    assert extra.std() == pytest.approx(1, abs=0.1) and abs(float((extra * plain.target).mean())) < 0.05


def test_a_samples_noise_depends_on_its_index_alone(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    objective = make_objective(multires_noise_discount=0.5, noise_offset=0.1, input_perturbation=0.1)
    whole, part = objective.add_noise(tensors[0], INDICES), objective.add_noise(tensors[0][2:4], INDICES[2:4])
    for name in ("latents", "timesteps", "alphas_cumprod", "target"):
        assert torch.allclose(getattr(whole, name)[2:4], getattr(part, name), atol=1e-6)


def test_a_loss_scale_scales_its_own_sample(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    objective = make_objective()
    batch = objective.add_noise(tensors[0], INDICES)
    losses = formulas.sample_losses(tensors[1], batch.target, None)
    scales = torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5, 1.0])
    assert torch.allclose(objective.loss(tensors[1], batch, scales, None), (losses * scales).sum())


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
    config = TrainConfig.model_validate(changes)
    objective = Objective(config, formulas.EPSILON, SCHEDULER.alphas_cumprod)
    batch = objective.add_noise(tensors[0], INDICES)
    snr = batch.alphas_cumprod / (1 - batch.alphas_cumprod)
    losses = formulas.sample_losses(tensors[1], batch.target, None) * weight(snr)
    assert torch.allclose(objective.loss(tensors[1], batch, torch.ones(6), None), losses.sum())
