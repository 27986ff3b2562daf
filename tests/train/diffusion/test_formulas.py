"""The formulas, against diffusers' own schedulers and against the algebra it comes from."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr as reference_rescale
from diffusers.training_utils import compute_snr

from dreamloom.train.diffusion import formulas

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
TIMES = torch.tensor([0, 1, 250, 500, 998, 999])
ALPHAS_CUMPROD = SCHEDULER.alphas_cumprod


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, 8, 8, generator=generator), torch.randn(6, 4, 8, 8, generator=generator)


def test_noise_is_added_as_diffusers_adds_it(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    latents, noise = tensors
    ours = formulas.add_noise(latents, noise, ALPHAS_CUMPROD[TIMES])
    assert torch.allclose(ours, SCHEDULER.add_noise(latents, noise, TIMES), atol=1e-6, rtol=0)


def test_v_is_diffusers_velocity_and_epsilon_is_the_noise(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    latents, noise = tensors
    ours = formulas.prediction_target(formulas.V_PREDICTION, latents, noise, ALPHAS_CUMPROD[TIMES])
    assert torch.allclose(ours, SCHEDULER.get_velocity(latents, noise, TIMES), atol=1e-6, rtol=0)
    assert formulas.prediction_target(formulas.EPSILON, latents, noise, ALPHAS_CUMPROD[TIMES]) is noise


def test_zero_terminal_snr_is_diffusers() -> None:
    ours = formulas.rescale_zero_terminal_snr(ALPHAS_CUMPROD)
    theirs = torch.cumprod(1 - reference_rescale(SCHEDULER.betas), dim=0)
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)
    assert ours[-1] == 0 and ours[0] == pytest.approx(ALPHAS_CUMPROD[0].item())


def test_min_snr_weights_are_those_of_diffusers_training_script() -> None:
    snr = compute_snr(SCHEDULER, TIMES)
    limited = torch.stack([snr, torch.full_like(snr, 5.0)], dim=1).min(dim=1)[0]
    for_epsilon = formulas.min_snr_weight(formulas.EPSILON, ALPHAS_CUMPROD[TIMES], 5.0)
    for_v = formulas.min_snr_weight(formulas.V_PREDICTION, ALPHAS_CUMPROD[TIMES], 5.0)
    assert torch.allclose(for_epsilon, limited / snr, rtol=1e-4)
    assert torch.allclose(for_v, limited / (snr + 1), rtol=1e-4)


@pytest.mark.parametrize("weighting", ["min_snr", "debiased"])
@pytest.mark.parametrize("prediction", [formulas.EPSILON, formulas.V_PREDICTION])
def test_either_prediction_weighs_the_images_error_alike(
    prediction: str, weighting: str, tensors: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """A wrong image gives a wrong epsilon or v; weighted, either counts min(SNR, γ), or √SNR, times its error."""
    latents, noise = (t.double() for t in tensors)
    kept = ALPHAS_CUMPROD[TIMES].double()
    noisy = formulas.add_noise(latents, noise, kept)
    guess = latents + 0.1
    wide = kept[:, None, None, None]
    implied_noise = (noisy - wide.sqrt() * guess) / (1 - wide).sqrt()
    predicted = formulas.prediction_target(prediction, guess, implied_noise, kept)
    wanted = formulas.prediction_target(prediction, latents, noise, kept)
    error = ((predicted - wanted) ** 2).mean(dim=(1, 2, 3))
    snr = kept / (1 - kept)
    if weighting == "debiased":
        assert torch.allclose(
            formulas.debiased_estimation_weight(prediction, kept) * error, snr.sqrt() * 0.01, rtol=1e-6
        )
    else:
        weighted = formulas.min_snr_weight(prediction, kept, 5.0) * error
        assert torch.allclose(weighted, snr.clamp(max=5) * 0.01, rtol=1e-6)


def test_debiased_estimation_is_one_over_the_root_of_snr() -> None:
    ours = formulas.debiased_estimation_weight(formulas.EPSILON, ALPHAS_CUMPROD[TIMES])
    assert torch.allclose(ours, compute_snr(SCHEDULER, TIMES).rsqrt(), rtol=1e-4)


def test_hubers_loss_is_twice_torchs_to_the_bit_and_with_a_large_delta_the_squared_error(
    tensors: tuple[torch.Tensor, torch.Tensor],
) -> None:
    errors = tensors[0]
    for delta in (0.1, 1e3):
        ours = formulas.huber_loss(errors, torch.full((6,), delta))
        assert torch.equal(ours, 2 * F.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=delta))
    assert torch.equal(ours, errors**2)


def test_errors_outside_do_not_count(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    losses = (tensors[0] - tensors[1]) ** 2
    mask = torch.zeros(6, 8, 8)
    mask[:, 2:5, :6] = 1
    ours = formulas.sample_losses(losses, mask)
    assert torch.allclose(ours, losses[:, :, 2:5, :6].flatten(1).mean(1), atol=1e-6)
    assert torch.allclose(
        formulas.sample_losses(losses, torch.ones(6, 8, 8)), formulas.sample_losses(losses), atol=1e-6
    )


def test_pyramid_noise_keeps_its_deviation_and_is_smoother(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert formulas.multires_noise_sizes(8, 12) == [(4, 6), (2, 3), (1, 2)]
    noise = tensors[0]
    octaves = [torch.randn(6, 4, *size) for size in formulas.multires_noise_sizes(8, 8)]
    total = formulas.add_multires_noise(noise, octaves, 0.8)
    assert torch.allclose(total.std(dim=(1, 2, 3)), torch.ones(6), atol=1e-5)
    neighbours = (total[..., 1:] * total[..., :-1]).mean()
    assert neighbours > (noise[..., 1:] * noise[..., :-1]).mean() + 0.1
    alone = formulas.add_multires_noise(noise[2:3], [octave[2:3] for octave in octaves], 0.8)
    assert torch.allclose(alone, total[2:3], atol=1e-6), "a sample's noise does not depend on the others of its batch"
    assert torch.allclose(
        formulas.add_multires_noise(noise, octaves, 0.0), noise / noise.std(dim=(1, 2, 3), keepdim=True)
    )


def test_offset_noise_moves_whole_channels(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    noise = tensors[0]
    offset = torch.randn(6, 4, 1, 1)
    moved = formulas.add_offset_noise(noise, offset, 0.1) - noise
    assert torch.allclose(moved, (0.1 * offset).expand_as(noise), atol=1e-6)
