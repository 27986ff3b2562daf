"""The objective, against diffusers' own schedulers and against the algebra it comes from."""

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr as reference_rescale
from diffusers.training_utils import compute_snr

from train import objective

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
TIMES = torch.tensor([0, 1, 250, 500, 998, 999])
KEPT = SCHEDULER.alphas_cumprod


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, 8, 8, generator=made), torch.randn(6, 4, 8, 8, generator=made)


def test_noise_is_added_as_diffusers_adds_it(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    latents, noise = tensors
    ours = objective.add_noise(latents, noise, KEPT[TIMES])
    assert torch.allclose(ours, SCHEDULER.add_noise(latents, noise, TIMES), atol=1e-6, rtol=0)


def test_v_is_diffusers_velocity_and_epsilon_is_the_noise(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    latents, noise = tensors
    ours = objective.target(objective.V_PREDICTION, latents, noise, KEPT[TIMES])
    assert torch.allclose(ours, SCHEDULER.get_velocity(latents, noise, TIMES), atol=1e-6, rtol=0)
    assert objective.target(objective.EPSILON, latents, noise, KEPT[TIMES]) is noise


def test_zero_terminal_snr_is_diffusers() -> None:
    ours = objective.rescale_zero_terminal_snr(KEPT)
    theirs = torch.cumprod(1 - reference_rescale(SCHEDULER.betas), dim=0)
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)
    assert ours[-1] == 0 and ours[0] == pytest.approx(KEPT[0].item())


def test_min_snr_weights_are_those_of_diffusers_training_script() -> None:
    snr = compute_snr(SCHEDULER, TIMES)
    limited = torch.stack([snr, torch.full_like(snr, 5.0)], dim=1).min(dim=1)[0]
    for_epsilon = objective.min_snr_weight(objective.EPSILON, KEPT[TIMES], 5.0)
    for_v = objective.min_snr_weight(objective.V_PREDICTION, KEPT[TIMES], 5.0)
    assert torch.allclose(for_epsilon, limited / snr, rtol=1e-4)
    assert torch.allclose(for_v, limited / (snr + 1), rtol=1e-4)


@pytest.mark.parametrize("prediction", [objective.EPSILON, objective.V_PREDICTION])
def test_min_snr_weighs_the_pictures_error_alike_for_both_predictions(
    prediction: str, tensors: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """A wrong picture gives a wrong epsilon or v; weighted, either counts min(SNR, γ) times the picture's error."""
    latents, noise = (t.double() for t in tensors)
    kept = KEPT[TIMES].double()
    noisy = objective.add_noise(latents, noise, kept)
    guess = latents + 0.1
    wide = kept[:, None, None, None]
    implied_noise = (noisy - wide.sqrt() * guess) / (1 - wide).sqrt()
    predicted = objective.target(prediction, guess, implied_noise, kept)
    wanted = objective.target(prediction, latents, noise, kept)
    error = ((predicted - wanted) ** 2).mean(dim=(1, 2, 3))
    snr = kept / (1 - kept)
    weighted = objective.min_snr_weight(prediction, kept, 5.0) * error
    assert torch.allclose(weighted, snr.clamp(max=5) * 0.01, rtol=1e-6)


def test_errors_are_squared_or_hubers(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = tensors
    squared = objective.error(a, b, None)
    assert torch.allclose(squared, ((a - b) ** 2).flatten(1).mean(1))
    assert torch.allclose(objective.error(a, b, 1e3), squared)
    assert (objective.error(a, b, 0.1) < squared).all()
    assert objective.error(a.bfloat16(), b.bfloat16(), None).dtype == torch.float32


def test_offset_noise_moves_whole_channels(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    noise = tensors[0]
    offset = torch.randn(6, 4, 1, 1)
    moved = objective.with_offset(noise, offset, 0.1) - noise
    assert torch.allclose(moved, (0.1 * offset).expand_as(noise), atol=1e-6)
