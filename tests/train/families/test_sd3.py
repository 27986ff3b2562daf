"""Stable Diffusion 3 and 3.5: the flow's time, what files are known by, what is refused before anything loads."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from diffusers.training_utils import compute_loss_weighting_for_sd3

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import formulas
from dreamloom.train.diffusion.schedules import RectifiedFlow
from dreamloom.train.families.check import check_models
from dreamloom.train.families.memory import estimate_memory
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.parts import make_network
from dreamloom.train.families.sd3.configs import CONFIGS, TRANSFORMER, infer_transformer
from dreamloom.train.families.sd3.family import PRESETS, SD3
from dreamloom.train.families.sd3.original_keys import from_original_keys, to_original_keys
from dreamloom.train.families.suit import resolve_models
from tests.train.tiny_families import write_headers

Bases = Callable[[str], str]
Config = Callable[..., TrainConfig]
FLOW = RectifiedFlow(3.0, torch.zeros(1))
MANY = torch.arange(20_000)


def sigmas(latent_pixels: int = 128 * 128, **changes: Any) -> torch.Tensor:
    return FLOW.sample(TrainConfig(**changes), 7, MANY, 1, latent_pixels) / 1000


def test_noise_is_that_of_diffusers_scheduler() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    latents, added = torch.randn(2, 3, 16, 4, 4)
    timesteps = scheduler.timesteps[torch.tensor([3, 400, 990])]
    ours = FLOW.add_noise(latents, added, timesteps)
    assert torch.allclose(ours, scheduler.scale_noise(latents, timesteps, added), atol=1e-6)
    assert torch.equal(FLOW.target(latents, added, timesteps), added - latents)
    shares = scheduler.timesteps / 1000
    for kind in ("sigma_sqrt", "cosmap"):
        wanted = compute_loss_weighting_for_sd3(kind, shares)
        found = formulas.cosmap_weight(shares) if kind == "cosmap" else shares**-2
        assert torch.allclose(found, wanted, rtol=1e-5)


def test_time_is_sampled_as_the_paper_says() -> None:
    logit = torch.logit(sigmas(timestep_shift=1.0, logit_mean=0.5, logit_std=0.8).double())
    assert logit.mean().item() == pytest.approx(0.5, abs=0.01) and logit.std().item() == pytest.approx(0.8, abs=0.01)
    even = sigmas(timestep_shift=1.0, timestep_sampling="uniform")
    assert torch.histc(even, 10, 0, 1).tolist() == pytest.approx([2000] * 10, abs=5), "spread, not drawn"
    mode = sigmas(timestep_shift=1.0, timestep_sampling="mode")
    assert mode.min() > 0 and mode.max() <= 1 and torch.histc(mode, 4, 0, 1)[1:3].sum() > 11_000
    assert sigmas().median().item() == pytest.approx(3 / 4, abs=0.01), "the base's shift at 1024 pixels"
    assert sigmas(64 * 64).median().item() == pytest.approx(1.5 / 2.5, abs=0.01), "half of it at 512"


def test_strata_of_an_evaluation_are_even_in_the_flows_own_time() -> None:
    found = [FLOW.spread(stratum, 8, offset) for stratum in range(8) for offset in (0.0, 0.999)]
    assert found == sorted(found) and found[0] == 0 and found[-1] < 1000
    assert [int(value * 8 / 1000) for value in found] == [n // 2 for n in range(16)]


KINDS = {"3 medium": (24, (), None, 192), "3.5 medium": (24, tuple(range(13)), "rms_norm", 384),
         "3.5 large": (38, (), "rms_norm", 192)}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_real_files_are_known_by_their_tensors(kind: str) -> None:
    """Built without memory; diffusers' own conversion finds what it needs, and no more."""
    layers, dual, norm, positions = KINDS[kind]
    config = {"num_layers": layers, "num_attention_heads": layers, "caption_projection_dim": 64 * layers}
    with torch.device("meta"):
        network = SD3Transformer2DModel(
            dual_attention_layers=dual, qk_norm=norm, pos_embed_max_size=positions, **config
        )
        vae = make_network(SD3, "vae", CONFIGS["vae"]).state_dict()
    own = {"transformer": network.state_dict(), "vae": vae}
    file = to_original_keys(own)
    found = infer_transformer({name: tuple(value.shape) for name, value in file.items()})
    assert {name: network.config[name] for name in found} == {**found, "dual_attention_layers": dual}
    back = from_original_keys(file, own)
    for name, weights in own.items():
        assert {k: v.shape for k, v in back[name].items()} == {k: v.shape for k, v in weights.items()}
    theirs = convert_sd3_transformer_checkpoint_to_diffusers({k: v for k, v in file.items() if TRANSFORMER in k})
    assert theirs.keys() == own["transformer"].keys()
    assert file["first_stage_model.decoder.conv_in.weight"].shape == (512, 16, 3, 3)


def test_what_is_not_given_suits_the_family(bases: Bases) -> None:
    config = resolve_models(TrainConfig(base=bases("sd3")))
    assert (config.resolution, config.min_snr_gamma, config.text_encoder_learning_rate) == (1024, None, 0.0)
    check_models(config)
    for optimizer, rate in (("lion", 5e-6), ("prodigy", 1.0)):
        assert resolve_models(TrainConfig(base=bases("sd3"), optimizer=optimizer)).learning_rate == rate


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_snr_gamma": 5.0}, "min_snr_gamma means nothing for"),
        ({"prediction_type": "v_prediction"}, "prediction_type means nothing"),
        ({"min_timestep": 5}, "min_timestep means nothing"),
        ({"clip_skip": 2}, "clip_skip is not for"),
        ({"sample_scheduler": "euler_a"}, "sample_scheduler is not for"),
        ({"preset": "8gb"}, "choose 12gb, 16gb, 24gb, 48gb or 80gb"),
        ({"lora_rank": 2, "lora_convolutions": True}, "has no blocks of convolutions"),
    ],
)
def test_what_means_nothing_is_told(changes: dict[str, Any], message: str, bases: Bases, config: Config) -> None:
    settings = {"base": bases("sd3"), "text_encoder_learning_rate": 0, "min_snr_gamma": None, **changes}
    with pytest.raises(UserError, match=message):
        check_models(config(**settings))


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_settings_of_a_flow_are_for_a_flow(family: str, bases: Bases, config: Config) -> None:
    with pytest.raises(UserError, match="flow_weighting is for rectified flows"):
        check_models(config(base=bases(family), flow_weighting="cosmap"))


def test_a_scheduler_of_no_flow_is_refused(bases: Bases, config: Config, tmp_path: Path) -> None:
    base = Path(shutil.copytree(bases("sd3"), tmp_path / "base"))
    file = base / "scheduler" / "scheduler_config.json"
    flow = json.loads(file.read_text())
    file.write_text(json.dumps({**flow, "prediction_type": "flow_prediction"}))  # left over from another scheduler
    check_models(config(base=str(base), min_snr_gamma=None))
    file.write_text(json.dumps({**flow, "_class_name": "DDIMScheduler"}))
    for opened in (check_models, lambda given: load_model(given.base, torch.device("cpu"))):
        with pytest.raises(UserError, match="is DDIMScheduler, not for rectified flows, and its model is of Stable"):
            opened(config(base=str(base), min_snr_gamma=None))


def test_a_vae_of_other_channels_is_refused(bases: Bases, config: Config, tmp_path: Path) -> None:
    shutil.copytree(Path(bases("sdxl")) / "vae", tmp_path / "vae")
    with pytest.raises(UserError, match="has 4 latent channels"):
        check_models(config(base=bases("sd3"), vae=str(tmp_path / "vae"), min_snr_gamma=None))


def test_images_far_smaller_than_the_base_draws_are_refused(bases: Bases, config: Config, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases("sd3"), base)
    file = base / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "sample_size": 16}))
    check_models(config(base=str(base), resolution=48, min_snr_gamma=None))
    with pytest.raises(UserError, match=r"resolution is 32, but .* draws 64 pixels"):
        check_models(config(base=str(base), resolution=32, min_snr_gamma=None))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fit_the_largest_by_the_estimate(preset: str, tmp_path: Path) -> None:
    layers, dual, norm, positions = KINDS["3.5 large"]
    transformer = {"num_layers": layers, "num_attention_heads": layers, "caption_projection_dim": 64 * layers,
                   "dual_attention_layers": dual, "qk_norm": norm, "pos_embed_max_size": positions,
                   "attention_head_dim": 64, "patch_size": 2, "in_channels": 16}  # fmt: skip
    t5 = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "d_kv": 64, "vocab_size": 32128,
          "feed_forward_proj": "gated-gelu"}  # fmt: skip
    write_headers(tmp_path, SD3, {**CONFIGS, "transformer": transformer, "text_encoder_3": t5})
    estimate = estimate_memory(resolve_models(TrainConfig(base=str(tmp_path), preset=preset)))
    assert estimate is not None and 0.4 < estimate.total / (int(preset.removesuffix("gb")) * 2**30) < 1.0


def test_a_model_without_t5_is_whole(bases: Bases) -> None:
    index = json.loads((Path(bases("sd3 without t5")) / "model_index.json").read_text())
    assert index["text_encoder_3"] == [None, None]
    check_models(resolve_models(TrainConfig(base=bases("sd3 without t5"))))


def test_t5_reads_as_many_tokens_as_it_is_told(bases: Bases, config: Config) -> None:
    model = load_model(bases("sd3"), torch.device("cpu"), t5_length=77)
    pipeline = diffusers.StableDiffusion3Pipeline.from_pretrained(bases("sd3"))
    captions = ["a thing", "", "far too long " * 20]
    with torch.no_grad():
        ours = model.encode(model.tokenize(captions))
        theirs, _, pooled, _ = pipeline.encode_prompt(
            captions, captions, captions, do_classifier_free_guidance=False, max_sequence_length=77
        )
    assert torch.equal(ours.states, theirs) and ours.pooled is not None and torch.equal(ours.pooled, pooled)
    for family in ("sd", "sdxl"):
        with pytest.raises(UserError, match="has no T5"):
            check_models(config(base=bases(family), t5_length=77))
