"""The step: what it must not do, and what accumulation, schedules, averages and frozen parts mean."""

import copy
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import BatchLoader
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.diffusion import noise
from dreamloom.train.families.opening import load_model
from dreamloom.train.loop.distributed import SINGLE_PROCESS
from dreamloom.train.loop.loop import train
from dreamloom.train.loop.loss_window import LossWindow, NonFiniteLossError
from dreamloom.train.loop.optimizers import lr_factor
from dreamloom.train.model.model import Model
from dreamloom.train.objectives import OBJECTIVES
from dreamloom.train.objectives.objective import ForwardPass, MakeTeacher
from tests.train.conftest import CPU, MakeTrainer, tokens_of

Config = Callable[..., TrainConfig]


def test_accumulated_gradients_are_averaged(make_trainer: MakeTrainer) -> None:
    """Twice the same batch is as good as once: neither the gradient nor the loss doubles."""
    (once, batches), (twice, _) = (
        make_trainer(max_grad_norm=1e9),
        make_trainer(max_grad_norm=1e9, gradient_accumulation_steps=2),
    )
    once.step(batches[:1])
    twice.step([batches[0], batches[0]])
    (first,), (second,) = once.window.take(), twice.window.take()
    assert second.loss == pytest.approx(first.loss, rel=1e-5)
    assert second.gradient == pytest.approx(first.gradient, rel=1e-4)
    assert (once.images_seen, twice.images_seen) == (2, 4)
    assert (once.num_steps, twice.num_steps) == (1, 1)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("weights", [{}, {"weight_dtype": "bf16", "gradient_checkpointing": True}])
def test_a_step_in_the_backward_pass_has_the_same_bits(
    optimizer: str, weights: dict[str, Any], make_trainer: MakeTrainer
) -> None:
    settings = {"optimizer": optimizer, "max_grad_norm": None, **weights}
    (plain, batches), (fused, _) = make_trainer(**settings), make_trainer(fused_backward=True, **settings)
    most = 0

    def count(parameter: torch.Tensor) -> None:  # runs before its parameter is stepped
        nonlocal most
        most = max(most, sum(each.grad is not None for each in fused.parameters))

    for parameter in fused.parameters:
        parameter.register_post_accumulate_grad_hook(count)  # type: ignore[no-untyped-call]
    for step in (batches[:1], batches[1:4], batches[:1]):  # what is left of buckets shares a step
        plain.step(step)
        fused.step(step)
    assert most <= 1 < len(fused.parameters)
    assert plain.window.take() == fused.window.take()
    assert all(torch.equal(*pair) for pair in zip(plain.parameters, fused.parameters, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs max_grad_norm null"),
        ({"max_grad_norm": None, "optimizer": "prodigy"}, "can't step prodigy; set optimizer to adamw or adafactor"),
        ({"max_grad_norm": None, "gradient_accumulation_steps": 2}, "needs gradient_accumulation_steps 1"),
        ({"max_grad_norm": None, "precision": "fp16"}, "needs precision bf16 or fp32"),
    ],
)
def test_what_looks_at_all_gradients_can_not_be_fused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(fused_backward=True, **settings)


def test_what_a_folder_says_of_its_loss_reaches_the_step(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config
) -> None:
    shutil.copytree(folder / "own", tmp_path / "own")
    (tmp_path / "own" / "loss_scale.txt").write_text("0")
    train(tmp_path, tmp_path / "run", config(base=tiny_base, max_train_steps=2))
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(record["loss"], record["gradient"]) for record in records] == [(0, 0), (0, 0)]


def test_clipping_covers_every_parameter(make_trainer: MakeTrainer) -> None:
    trainer, batches = make_trainer(max_grad_norm=1e-3)
    caught: list[float] = []

    def look(optimizer: Any, *_: Any) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        caught.append(math.sqrt(sum(float((g**2).sum()) for g in grads)))

    trainer.optimizer.inner.register_step_pre_hook(look)
    trainer.step(batches[:1])
    assert caught[0] <= 1.01e-3
    groups = trainer.optimizer.inner.param_groups
    assert len(groups) == 2 and sum(len(group["params"]) for group in groups) == len(trainer.parameters)


def test_a_text_encoder_at_rate_0_stays_as_it_is_and_is_asked_once(make_trainer: MakeTrainer) -> None:
    trainer, batches = make_trainer(text_encoder_learning_rate=0.0)
    text_encoder = trainer.model.components["text_encoder"]
    before = {key: value.clone() for key, value in text_encoder.state_dict().items()}
    unet = {key: value.clone() for key, value in trainer.model.denoiser.state_dict().items()}
    trainer.step(batches[:1])
    assert all(torch.equal(before[key], value) for key, value in text_encoder.state_dict().items())
    assert any(not torch.equal(unet[key], value) for key, value in trainer.model.denoiser.state_dict().items())
    assert all(ready.text.encoders["text_encoder"].keys() == {"states"} for ready in batches)


def test_averaged_weights_compute_beside_frozen_ones_in_bf16(make_trainer: MakeTrainer) -> None:
    trainer, batches = make_trainer(weight_dtype="bf16", precision="bf16", ema_half_life_images=4, clip_skip=2)
    frozen = [p for p in trainer.model.text_encoders["text_encoder"].parameters() if not p.requires_grad]
    with trainer.averaged_weights(), torch.no_grad():
        assert torch.isfinite(trainer.loss(batches[0]))
    assert frozen and all(parameter.dtype == torch.bfloat16 for parameter in frozen)


def test_clip_skip_shows_the_unet_an_earlier_layer_and_trains_no_later_one(make_trainer: MakeTrainer) -> None:
    """As sd-scripts and A1111: 2 is the layer before the last, and the last norm follows."""
    trainer, batches = make_trainer(clip_skip=2)
    text_encoder, tokens = trainer.model.components["text_encoder"], batches[0].text
    seen: list[torch.Tensor] = []
    inside = getattr(text_encoder, "text_model", text_encoder)
    hook = inside.encoder.layers[0].register_forward_hook(lambda *each: seen.append(each[2]))
    states = trainer.model.encode(tokens).states
    hook.remove()
    first = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    assert torch.equal(states, inside.final_layer_norm(first)), "of two layers"
    before = {key: value.clone() for key, value in text_encoder.state_dict().items()}
    trainer.step(batches[:1])
    moved = {key for key, value in text_encoder.state_dict().items() if not torch.equal(before[key], value)}
    assert any("layers.0." in key for key in moved) and not any("layers.1." in key for key in moved)
    assert not any("layers.1." in name for name in trainer.parts["text_encoder"])


def test_each_part_has_its_own_rate(make_trainer: MakeTrainer) -> None:
    trainer, batches = make_trainer(learning_rate=1e-3, text_encoder_learning_rate=1e-5, lr_warmup_images=20)
    trainer.step(batches[:1])
    assert [group["lr"] for group in trainer.optimizer.inner.param_groups] == pytest.approx([1e-4, 1e-6])


def test_rates_are_functions_of_the_images_seen(config: Config) -> None:
    constant, cosine = config(lr_warmup_images=10), config(lr_scheduler="cosine")
    assert [lr_factor(constant, "unet", seen, seen / 100) for seen in (0, 4, 8, 50)] == pytest.approx([0.2, 0.6, 1, 1])
    assert [lr_factor(cosine, "text_encoder", seen, seen / 100) for seen in (0, 50, 100)] == pytest.approx([1, 0.5, 0])


def test_the_average_has_the_stated_half_life(make_trainer: MakeTrainer) -> None:
    trainer, batches = make_trainer(ema_half_life_images=2)
    before = [p.detach().clone() for p in trainer.parameters]
    trainer.step(batches[:1])  # two images, one half-life
    assert trainer.average is not None
    for was, now, mean in zip(before, trainer.parameters, trainer.average.means, strict=True):
        assert torch.allclose(mean, (was + now.detach()) / 2, atol=1e-7)
    now = trainer.parameters[0].detach().clone()
    mean = trainer.average.means[0].clone()
    with trainer.averaged_weights():
        assert torch.equal(trainer.parameters[0], mean)
    assert torch.equal(trainer.parameters[0], now)
    assert not torch.equal(now, mean)


@pytest.mark.slow
def test_dropped_captions_are_the_empty_one_in_the_stated_share(tiny_base: str, folder: Path, config: Config) -> None:
    data = read_dataset(folder, 32, 8, 1)
    model = load_model(tiny_base, CPU)
    latents, texts = LatentCache(None, model.vae), TextCache(model, None, changing=("text_encoder",))
    latents.add(data.samples, 2)
    tokens = {}
    for share in (0.0, 0.3, 1.0):
        settings = config(caption_dropout_rate=share, epochs=200)
        groups = BatchLoader(data, latents, texts, settings, pin=False).steps(
            map(SINGLE_PROCESS.shard, BatchSchedule(data, settings).steps_after(0))
        )
        tokens[share] = torch.cat([tokens_of(ready.text) for group in groups for ready in group])
    empty = tokens_of(model.tokenize([""]))[0]
    dropped = {share: (found == empty).all(1) for share, found in tokens.items()}
    assert not dropped[0.0].any() and dropped[1.0].all()
    assert dropped[0.3].float().mean() == pytest.approx(0.3, abs=0.04)
    assert torch.equal(tokens[0.3][~dropped[0.3]], tokens[0.0][~dropped[0.3]])


def test_objectives_add_up(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is registered is made of config and model, and its gradient reaches the weights."""

    class Pull:
        def __init__(self, config: TrainConfig, model: Model, teacher: MakeTeacher) -> None:
            self.weight: torch.Tensor = model.denoiser.conv_in.weight
            self.scale = config.seed

        def loss(self, forward: ForwardPass) -> torch.Tensor:
            return self.scale * len(forward.indices) * self.weight.sum()

    alone, batches = make_trainer(seed=3)
    monkeypatch.setitem(OBJECTIVES, "pull", Pull)
    together, _ = make_trainer(seed=3)
    difference = together.loss(batches[0]) - alone.loss(batches[0])
    assert torch.allclose(difference, 3 * 2 * together.model.denoiser.conv_in.weight.sum(), rtol=1e-4)
    assert difference.requires_grad


def test_a_batchs_loss_does_not_depend_on_what_came_before(make_trainer: MakeTrainer) -> None:
    trainer, batches = make_trainer()
    late = trainer.loss(batches[3]).detach()
    trainer.loss(batches[1])
    assert torch.equal(trainer.loss(batches[3]).detach(), late)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"prediction_type": "v_prediction"},
        {"prediction_type": "v_prediction", "zero_terminal_snr": True, "min_snr_gamma": None},
        {"huber_delta": 0.1, "min_snr_gamma": None},
        {"debiased_estimation_loss": True, "min_snr_gamma": None, "input_perturbation": 0.1},
        {"loss_type": "mse_huber", "embedding_perturbation": 1.0, "timestep_weights": [1, 0.5]},
        {"loss_type": "pseudo_huber", "huber_schedule": "snr", "timestep_curriculum_power": 2},
        {"pad_color": "#ffffff", "flip_p": 0.5, "shuffle_tags": True},
        {"multires_noise_discount": 0.3, "min_timestep": 200, "max_timestep": 700},
        {"precision": "bf16"},
        {"precision": "fp16", "optimizer": "adafactor", "lora_rank": 2},
        {"weight_dtype": "bf16", "ema_half_life_images": 4},
        {
            "weight_dtype": "bf16",
            "lora_rank": 2,
            "optimizer": "prodigy",
            "learning_rate": 1,
            "text_encoder_learning_rate": 1,
        },
        {"optimizer": "adafactor"},
        {"optimizer": "schedule_free"},
        {"gradient_checkpointing": True},
    ],
)
def test_every_objective_and_precision_trains(make_trainer: MakeTrainer, changes: dict[str, Any]) -> None:
    trainer, batches = make_trainer(**changes)
    for batch in batches[:3]:
        trainer.step([batch])
    assert all(math.isfinite(record.loss) and record.gradient for record in trainer.window.take())
    kept_as = torch.bfloat16 if changes.get("weight_dtype") == "bf16" and "lora_rank" not in changes else torch.float32
    assert all(p.dtype == kept_as for p in trainer.parameters)
    with trainer.averaged_weights(), torch.no_grad():
        assert math.isfinite(trainer.loss(batches[0]))
    assert all(p.dtype == kept_as for p in trainer.parameters)


@pytest.mark.slow
def test_gradient_checkpointing_gives_the_same_gradient(make_trainer: MakeTrainer) -> None:
    (plain, batches), (thrifty, _) = make_trainer(), make_trainer(gradient_checkpointing=True)
    plain.step(batches[:1])
    thrifty.step(batches[:1])
    assert thrifty.window.take()[0].gradient == pytest.approx(plain.window.take()[0].gradient, rel=1e-4)


@pytest.mark.parametrize("wrong", [(math.inf, 1.0), (0.5, math.nan)], ids=["loss", "gradient"])
def test_a_window_of_losses_finds_the_step_where_it_went_wrong(wrong: tuple[float, float]) -> None:
    window = LossWindow()
    for step, (loss, gradient) in enumerate([(0.5, 1.0), wrong, (0.5, 1.0)], start=1):
        window.add(step, step, 1e-3, torch.tensor(loss), torch.tensor(gradient))
    with pytest.raises(NonFiniteLossError) as caught:
        window.take()
    assert caught.value.step == 2


def test_noise_differs_between_streams(make_trainer: MakeTrainer) -> None:
    trainer, _ = make_trainer()
    drawn = [
        noise.normal(key, torch.arange(2), (4, 4, 4))
        for key in [trainer.posterior_stream, *trainer.noise_process.streams.values()]
    ]
    assert len({tuple(d.flatten().tolist()) for d in drawn}) == len(drawn)


def test_latents_are_drawn_from_their_posterior(make_trainer: MakeTrainer) -> None:
    """As the VAE's deviation is cached beside the mean, a step sees another sample, not the mean."""
    trainer, batches = make_trainer()
    batch = batches[0]
    without = batch.posteriors.clone()
    without[:, 1] = 0
    assert batch.posteriors[:, 1].abs().sum() > 0
    wide = without + torch.stack([torch.zeros_like(without[:, 0]), torch.ones_like(without[:, 1])], dim=1)
    mean_only = trainer.loss(replace(batch, posteriors=without))
    assert torch.equal(mean_only, trainer.loss(replace(batch, posteriors=without)))
    assert not torch.equal(mean_only, trainer.loss(replace(batch, posteriors=wide)))


def test_a_state_holds_the_counter_the_weights_and_the_average(make_trainer: MakeTrainer) -> None:
    (before, batches), (after, _) = make_trainer(ema_half_life_images=4), make_trainer(ema_half_life_images=4)
    for batch in batches[:2]:
        before.step([batch])
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    assert (after.images_seen, after.num_steps) == (before.images_seen, 2)
    for name in ("weights", "average"):
        left, right = before.state_dict()[name], after.state_dict()[name]
        assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    for trainer in (before, after):
        trainer.step([batches[2]])
    assert all(torch.equal(a, b) for a, b in zip(before.parameters, after.parameters, strict=True))


def test_the_loss_of_a_last_step_is_the_mean_over_its_images(make_trainer: MakeTrainer) -> None:
    """A run's last step may hold fewer images than the others."""
    (whole, batches), (last, _) = make_trainer(), make_trainer(gradient_accumulation_steps=2)
    last.images_seen = last.schedule.num_images - len(batches[0].indices)
    whole.step(batches[:1])
    last.step(batches[:1])
    (expected,), (found,) = whole.window.take(), last.window.take()
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert last.images_seen == last.schedule.num_images


@pytest.mark.parametrize(
    ("changes", "losses", "squares"),
    [
        ({}, [2.3481636, 2.2832689, 2.5937665], 3704.03890),
        ({"text_encoder_learning_rate": 0.0}, [2.3481636, 2.2832651, 2.5937657], 3330.02696),
        ({"clip_skip": 2, "flip_p": 0.5}, [2.3144960, 2.2385931, 2.5627649], 3537.20800),
        ({"prediction_type": "v_prediction", "zero_terminal_snr": True}, [0.7443094, 1.1400890, 0.7480360], 3704.24989),
        ({"lora_rank": 2}, [2.3481636, 2.2832689, 2.5937665], 40.0950262),
    ],
)
def test_losses_and_weights_are_those_of_release_0_2(
    changes: dict[str, Any], losses: list[float], squares: float, make_trainer: MakeTrainer
) -> None:
    """Measured before models had families; the sum of the weights' squares is after three steps."""
    trainer, batches = make_trainer(**changes)
    assert [trainer.loss(batch).item() for batch in batches[:3]] == pytest.approx(losses, rel=1e-5)
    for batch in batches[:3]:
        trainer.step([batch])
    assert sum(p.detach().double().square().sum().item() for p in trainer.parameters) == pytest.approx(
        squares, rel=1e-6
    )
