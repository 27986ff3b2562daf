"""Noise, targets and weighted losses, against diffusers' schedulers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.loader import LoadedBatch
from dreamloom.train.data.schedule import Batch
from dreamloom.train.diffusion import formulas
from dreamloom.train.diffusion.schedules import DiscreteSchedule
from dreamloom.train.model.text import Condition, Text
from dreamloom.train.objectives.denoising import Denoising
from dreamloom.train.objectives.losses import LOSSES
from dreamloom.train.objectives.noise_process import NoiseProcess, NoisyBatch
from dreamloom.train.objectives.objective import ForwardPass

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
INDICES = torch.arange(100, 106)


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, 8, 8, generator=generator), torch.randn(6, 4, 8, 8, generator=generator)


def make_noise_process(total_images: int = 1000, **changes: Any) -> NoiseProcess:
    schedule = DiscreteSchedule(changes.get("prediction_type", "epsilon"), SCHEDULER.alphas_cumprod)
    return NoiseProcess(TrainConfig(min_snr_gamma=None, **changes), schedule, total_images)


def loss(
    config: TrainConfig,
    predicted: torch.Tensor,
    noisy: NoisyBatch,
    scales: torch.Tensor,
    prediction_type: str = formulas.EPSILON,
) -> torch.Tensor:
    nothing = torch.empty(0)
    batch = LoadedBatch(Batch((64, 64), "", (), ()), nothing, Text({}), nothing, INDICES, scales, None, nothing)
    forward = ForwardPass(batch, INDICES, noisy, Condition(nothing), predicted, scales, None)
    return Denoising(config, prediction_type).loss(forward)


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
    losses = ((tensors[1] - noisy.target) ** 2).mean(dim=(1, 2, 3))
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
    losses = ((tensors[1] - noisy.target) ** 2).mean(dim=(1, 2, 3)) * weight(snr)
    assert torch.allclose(loss(TrainConfig.model_validate(changes), tensors[1], noisy, torch.ones(6)), losses.sum())


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
def test_losses_and_their_schedules_are_those_of_the_peers(
    loss_type: str, schedule: str, tensors: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """sd-scripts' `conditional_loss` and `get_huber_threshold_if_needed`, EveryDream 2's mixes, torch's Huber loss."""
    delta = 0.2
    settings = {} if loss_type == "mse" else {"huber_delta": delta, "huber_schedule": schedule}
    config = TrainConfig.model_validate({"min_snr_gamma": None, "loss_type": loss_type, **settings})
    noisy = make_noise_process().add_noise(tensors[0], INDICES)
    kept, predicted, target = SCHEDULER.alphas_cumprod[noisy.timesteps], tensors[1], noisy.target
    sigmas = ((1.0 - kept) / kept) ** 0.5
    c = {
        "constant": torch.full_like(kept, delta),
        "exponential": torch.exp(math.log(delta) / 1000 * noisy.timesteps),
        "snr": (1 - delta) / (1 + sigmas) ** 2 + delta,
    }[schedule]
    share = noisy.timesteps.view(-1, 1, 1, 1) / 1000
    mse = F.mse_loss(predicted, target, reduction="none")
    pairs = zip(predicted, target, c.tolist(), strict=True)
    huber = torch.stack([F.huber_loss(p, t, reduction="none", delta=each) for p, t, each in pairs])
    c = c.view(-1, 1, 1, 1)
    theirs = {
        "mse": mse,
        "huber": 2 * huber,
        "pseudo_huber": 2 * c * (torch.sqrt((predicted - target) ** 2 + c**2) - c),
        "smooth_l1": 2 * (torch.sqrt((predicted - target) ** 2 + c**2) - c),
        "mse_huber": mse * share + huber * (1 - share),
        "huber_mse": mse * (1 - share) + huber * share,
    }[loss_type]
    reference = theirs.mean(dim=(1, 2, 3)).sum()
    assert torch.allclose(loss(config, predicted, noisy, torch.ones(6)), reference, rtol=1e-5)


def test_debiased_v_is_kohyas_where_that_is_asked_for(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    """sd-scripts' `apply_debiased_estimation`: 1/(SNR + 1) for v, with SNR up to 1000."""
    noisy = make_noise_process(prediction_type="v_prediction").add_noise(tensors[0], INDICES)
    config = TrainConfig(prediction_type="v_prediction", debiased_estimation_loss=True, debiased_v_weight="kohya")
    snr = (noisy.alphas_cumprod / (1 - noisy.alphas_cumprod)).clamp(max=1000)
    losses = ((tensors[1] - noisy.target) ** 2).mean(dim=(1, 2, 3)) / (snr + 1)
    ours = loss(config, tensors[1], noisy, torch.ones(6), formulas.V_PREDICTION)
    assert torch.allclose(ours, losses.sum())
    assert not torch.allclose(ours, loss(config, tensors[1], noisy, torch.ones(6), formulas.EPSILON))


def test_timestep_weights_are_interpolated(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    config = TrainConfig(min_snr_gamma=None, timestep_weights=[0.0, 1.0, 0.5])
    noisy = make_noise_process().add_noise(tensors[0], INDICES)
    weights = np.interp(noisy.timesteps.numpy(), [0, 499.5, 999], [0.0, 1.0, 0.5])
    losses = ((tensors[1] - noisy.target) ** 2).mean(dim=(1, 2, 3)) * torch.tensor(weights)
    assert loss(config, tensors[1], noisy, torch.ones(6)) == pytest.approx(float(losses.sum()), rel=1e-5)


def test_a_curriculum_begins_with_much_noise_and_ends_with_all_timesteps(
    tensors: tuple[torch.Tensor, torch.Tensor],
) -> None:
    latents = tensors[0][:1].expand(1000, 4, 8, 8)
    process = make_noise_process(4000, min_timestep=100, timestep_curriculum_power=2, initial_min_timestep=800)
    least = [int(process.add_noise(latents, torch.arange(b, b + 1000)).timesteps.min()) for b in range(0, 4000, 1000)]
    lowest = [100 + 700 * (1 - (begin + 1000) / 4000) ** 2 for begin in range(0, 4000, 1000)]
    assert all(low <= found < low + 60 for found, low in zip(least, lowest, strict=True))
    assert process.add_noise(latents, torch.arange(1000)).timesteps.max() == 999


def test_embeddings_are_perturbed_as_asked_for(tensors: tuple[torch.Tensor, torch.Tensor]) -> None:
    """EveryDream 2's: noise of γ/√width. It depends on the sample's index alone."""
    states = torch.ones(6, 50, 64)
    assert make_noise_process().perturb_embeddings(states, INDICES) is states
    process = make_noise_process(embedding_perturbation=2.0)
    extra = process.perturb_embeddings(states, INDICES) - states
    assert float(extra.std()) == pytest.approx(2 / 8, rel=0.02) and abs(float(extra.mean())) < 0.01
    assert torch.equal(process.perturb_embeddings(states[2:4], INDICES[2:4]) - 1, extra[2:4])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss_type": "mse", "huber_delta": 0.1}, "mse has no huber_delta"),
        ({"huber_schedule": "snr"}, "mse has no huber_delta"),
        ({"loss_type": "huber", "huber_delta": None}, "needs a huber_delta"),
        ({"timestep_weights": [1]}, "two weights"),
        ({"timestep_curriculum_power": 1, "min_timestep": 900}, "less than min_timestep"),
        ({"timestep_curriculum_power": 1, "max_timestep": 500}, "more than max_timestep"),
    ],
)
def test_what_does_not_go_together_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig.model_validate(changes)


def test_a_delta_alone_means_hubers_loss_and_each_loss_has_its_delta() -> None:
    assert TrainConfig(huber_delta=0.3).loss_type == "huber"
    assert TrainConfig(loss_type="pseudo_huber").huber_delta == 0.1
    assert TrainConfig(loss_type="mse_huber").huber_delta == 1
