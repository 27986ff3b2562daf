"""Stable Diffusion XL: what its files are known by, what its UNet is told of images, what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import yaml
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import save_file

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.crops import View, micro_conditioning
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.evaluate.drawings import Drawing
from dreamloom.train.evaluate.sample import draw_images
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.writers import Export, write_single_file
from dreamloom.train.families.check import check_models
from dreamloom.train.families.files import find_family, infer_component_config
from dreamloom.train.families.memory import estimate_memory
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.parts import make_network
from dreamloom.train.families.sdxl.configs import CONFIGS, CROSS_ATTENTION_KEY
from dreamloom.train.families.sdxl.family import PRESETS, SDXL
from dreamloom.train.families.sdxl.original_keys import from_original_keys, to_original_keys
from dreamloom.train.families.suit import resolve_models
from dreamloom.train.model.family import trained_components
from dreamloom.train.model.prediction import read_prediction
from tests.train.conftest import CPU, paint
from tests.train.tiny_families import save_sdxl, write_headers

Bases = Callable[[str], str]
Config = Callable[..., TrainConfig]
UNET = "model.diffusion_model."


# Sizes


def test_sizes_are_told_of_the_image_as_it_was_and_of_its_crop(tmp_path: Path, bases: Bases) -> None:
    """An image of 80 × 40 fills a bucket of 40 × 32 in height, at 4/5 of its size: its crops are of 50 × 40."""
    paint(tmp_path / "a" / "x.png", (80, 40), 0)
    (sample,) = read_dataset(tmp_path, 40, 8, 1).samples
    sample = replace(sample, bucket=(40, 32))
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(bases("sdxl"))

    def told(view: View, kind: Any = "images") -> list[float]:
        (row,) = micro_conditioning([sample], [view], kind)
        return [float(value) for value in row]

    left = View((10.0, 0.0, 60.0, 40.0))
    assert told(left) == [40, 80, 0, 8, 32, 40]
    assert told(replace(left, flipped=True)) == [40, 80, 0, 16, 32, 40], "its left is what was its right"
    assert told(View((10.0, 10.0, 35.0, 30.0))) == [40, 80, 16, 16, 32, 40], "of the image as it is scaled"
    assert told(View((0, 0, 80, 40), pad_color="#ffffff")) == [40, 80, 0, 0, 32, 40]
    expected = pipeline._get_add_time_ids((32, 40), (0, 0), (32, 40), torch.float32, 24)
    assert torch.equal(micro_conditioning([sample], [left], "constant"), expected)


def test_crops_are_told_in_training(bases: Bases, tmp_path: Path, make_trainer: Any) -> None:
    _, batches = make_trainer(base=bases("sdxl"), crop_jitter=0.4, flip_p=0.5, epochs=3)
    rows = torch.cat([batch.sizes for batch in batches])
    told = {tuple(row) for row in rows.tolist()}
    assert {row[:2] for row in told} == {(32, 48), (40, 40)}, "height and width of the files"
    assert len({row[2:4] for row in told}) > 3 and min(min(row) for row in told) >= 0
    _, (batch, *_) = make_trainer(base=bases("sdxl"), micro_conditioning="constant")
    assert torch.equal(batch.sizes[:, :2], batch.sizes[:, 4:]) and not batch.sizes[:, 2:4].any()


# Text encoders


def test_each_encoder_learns_at_its_own_rate_or_not_at_all(bases: Bases, make_trainer: Any, config: Config) -> None:
    both, batches = make_trainer(base=bases("sdxl"), text_encoder_learning_rate=1e-4, text_encoder_2_learning_rate=1e-5)
    both.step(batches[:1])
    rates = dict(zip(both.parts, [group["lr"] for group in both.optimizer.inner.param_groups], strict=True))
    assert rates == pytest.approx({"unet": 1e-3, "text_encoder": 1e-4, "text_encoder_2": 1e-5})
    assert all(parameter.grad is None for parameter in both.parameters)
    seen = [name for name in both.parameter_names() if name.startswith("text_encoder.")]
    assert seen and not any("layers.2." in name or "final_layer_norm" in name for name in seen), "after what is taken"
    first, batches = make_trainer(base=bases("sdxl"), text_encoder_2_learning_rate=0)
    kept = {name: set(part) for name, part in batches[0].text.encoders.items()}
    assert kept == {"text_encoder": {"tokens"}, "text_encoder_2": {"states", "pooled"}}
    assert trained_components(first.config, SDXL) == ["unet", "text_encoder"]
    with pytest.raises(UserError, match="one text encoder"):
        check_models(config(base=bases("sd"), text_encoder_2_learning_rate=1e-6))


def test_what_sums_captions_up_is_kept_for_the_next_run(bases: Bases, tmp_path: Path) -> None:
    model = load_model(bases("sdxl"), CPU)
    for _ in range(2):
        cache = TextCache(model, tmp_path, changing=())
        cache.add(["a thing", "another"])
        shards = len(list(tmp_path.rglob("*.safetensors")))
    assert shards == 2, "one for each encoder"
    with torch.no_grad():
        live = model.encode(model.tokenize(["another"]))
    kept = model.encode(cache.get(["another"]))
    assert live.pooled is not None and kept.pooled is not None
    assert torch.allclose(kept.pooled, live.pooled, atol=2e-3) and torch.allclose(kept.states, live.states, atol=2e-3)


# Files


def test_real_files_are_known_by_their_tensors(tmp_path: Path) -> None:
    """Built without memory, the tensors have the names and shapes of the files that are in use."""
    with torch.device("meta"):
        networks = {name: make_network(SDXL, name, CONFIGS[name]) for name in SDXL.file_prefixes}
    shapes = {name: network.state_dict() for name, network in networks.items()}
    file = to_original_keys(shapes)
    assert len(shapes["unet"]) == sum(name.startswith(UNET) for name in file) == 1680
    assert file[f"{UNET}label_emb.0.0.weight"].shape == (1280, 2816)
    assert file[f"{UNET}input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight"].shape == (1280, 2048)
    assert file[f"{UNET}output_blocks.2.2.conv.weight"].shape == (1280, 1280, 3, 3)
    assert file["conditioner.embedders.0.transformer.text_model.encoder.layers.11.mlp.fc1.weight"].shape == (3072, 768)
    assert file["conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight"].shape == (3840, 1280)
    assert file["conditioner.embedders.1.model.text_projection"].shape == (1280, 1280)
    assert sum(value.numel() for value in shapes["unet"].values()) == 2_567_463_684
    unet = convert_ldm_unet_checkpoint(dict(file), dict(networks["unet"].config))
    vae = convert_ldm_vae_checkpoint(dict(file), dict(networks["vae"].config))
    assert unet.keys() == shapes["unet"].keys() and vae.keys() == shapes["vae"].keys()
    back = from_original_keys(file, shapes)
    for name, own in shapes.items():
        assert {k: v.shape for k, v in back[name].items()} == {k: v.shape for k, v in own.items()}
    known = {name: tuple(value.shape) for name, value in file.items()}
    assert SDXL.owns_file(known) and infer_component_config(tmp_path, known, "unet") == CONFIGS["unet"]


def test_a_file_says_how_it_predicts_and_so_does_an_export(bases: Bases, tmp_path: Path) -> None:
    """Programs and NoobAI's files say v_pred and ztsnr by empty tensors."""
    tensors = {
        CROSS_ATTENTION_KEY: torch.zeros(1, 2048),
        f"{UNET}input_blocks.0.0.weight": torch.zeros(1, 4, 3, 3),
        "conditioner.embedders.0.x": torch.zeros(1),
        "conditioner.embedders.1.x": torch.zeros(1),
    }
    save_file(tensors | {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, tmp_path / "v.safetensors")
    save_file(tensors, tmp_path / "epsilon.safetensors")
    resolved = resolve_models(TrainConfig(base=str(tmp_path / "v.safetensors")))
    assert resolved.zero_terminal_snr and resolved.min_snr_gamma is None and resolved.resolution == 1024
    assert not resolve_models(TrainConfig(base=str(tmp_path / "epsilon.safetensors"))).zero_terminal_snr
    model = load_model(bases("sdxl"), CPU, None, "v_prediction", zero_terminal_snr=True)
    write_single_file(Export(model, ExportConfig(), {}), tmp_path)
    for name, scaling in (("v", "VScaling"), ("epsilon", "EpsScaling")):  # as A1111 and Forge, before what tensors say
        target = f"sgm.modules.diffusionmodules.denoiser_scaling.{scaling}"
        beside = {"model": {"params": {"denoiser_config": {"params": {"scaling_config": {"target": target}}}}}}
        save_file(tensors | {"v_pred": torch.empty(0)}, tmp_path / f"{scaling}.safetensors")
        (tmp_path / f"{scaling}.yaml").write_text(json.dumps(beside))
        assert read_prediction(tmp_path / f"{scaling}.safetensors", {"v_pred"})["prediction_type"].startswith(name)
    assert read_prediction(tmp_path / "model.safetensors", set())["prediction_type"] == "v_prediction", "by its .yaml"
    params = yaml.safe_load((tmp_path / "model.yaml").read_text())["model"]["params"]["network_config"]["params"]
    assert params["context_dim"] == model.denoiser.config.cross_attention_dim and params["num_classes"] == "sequential"
    save_sdxl(tmp_path)
    again = load_model(str(tmp_path / "model.safetensors"), CPU)
    assert again.prediction_type == "epsilon", "a file in a folder is as the folder says"


# What suits it, and what is refused


def test_what_is_not_given_suits_the_family(bases: Bases, tmp_path: Path) -> None:
    base = bases("sdxl")
    plain = resolve_models(TrainConfig(base=base))
    assert (plain.resolution, plain.guidance_scale, plain.text_encoder_learning_rate) == (1024, 5.0, 0.0)
    assert plain.learning_rate == 4e-7 and resolve_models(plain) == plain
    assert resolve_models(TrainConfig(base=base, preset="12gb", lora_kind="dora", base_bits=8)).lora_rank == 16
    lora = resolve_models(TrainConfig(base=base, lora_rank=8))
    assert (lora.learning_rate, lora.text_encoder_learning_rate) == (1e-4, 0.0)
    given = resolve_models(TrainConfig(base=base, resolution=768, text_encoder_learning_rate=1e-6, preset="12gb"))
    assert (given.resolution, given.text_encoder_learning_rate, given.lora_rank) == (768, 1e-6, 16)
    assert given.batch_size == 1 and given.optimizer == "adamw" and given.precision == "bf16"
    assert resolve_models(TrainConfig(base=base, optimizer="adafactor")).learning_rate == 4e-7
    prodigy = resolve_models(TrainConfig(base=base, optimizer="prodigy"))
    assert (prodigy.learning_rate, prodigy.text_encoder_learning_rate) == (1.0, 0.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fit_by_the_estimate(preset: str, tmp_path: Path) -> None:
    write_headers(tmp_path, SDXL, CONFIGS)
    config = resolve_models(TrainConfig(base=str(tmp_path), preset=preset))
    estimate = estimate_memory(config)
    assert estimate is not None and 0.4 < estimate.total / (int(preset.removesuffix("gb")) * 2**30) < 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_skip": 2}, "always sees the last layer but one"),
        ({"lora_kind": "dora"}, "lora_kind is for adapters, and all weights are trained; set lora_rank"),
        ({"base_bits": 4}, "base_bits is for adapters"),
        ({"base_on_cpu": True}, "base_on_cpu is for adapters"),
    ],
)
def test_settings_of_other_families_are_refused(
    changes: dict[str, Any], message: str, bases: Bases, config: Config
) -> None:
    with pytest.raises(UserError, match=message):
        check_models(config(**{"base": bases("sdxl"), "text_encoder_learning_rate": 0, **changes}))


def test_refiners_inpainting_and_loras_are_refused_in_a_sentence(bases: Bases, tmp_path: Path, config: Config) -> None:
    def folder(name: str, index: dict[str, Any], unet: dict[str, Any]) -> str:
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "model_index.json").write_text(json.dumps(index))
        (tmp_path / name / "unet" / "config.json").write_text(json.dumps(unet))
        return str(tmp_path / name)

    names = ["tokenizer_2", "text_encoder_2", "unet", "vae", "scheduler"]
    index: dict[str, Any] = {"_class_name": "StableDiffusionXLImg2ImgPipeline"} | {n: ["x", "y"] for n in names}
    unet = {"in_channels": 4, "out_channels": 4, "addition_embed_type": "text_time"}
    both = {"text_encoder": ["x", "y"], "tokenizer": ["x", "y"]}
    save_file({"unet.x.lora_A.weight": torch.zeros(1)}, (tmp_path / "y.safetensors"))
    (tmp_path / "lora").mkdir()
    save_file({"unet.x.lora_A.weight": torch.zeros(1)}, tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    refiner = {"conditioner.embedders.0.model.x": torch.zeros(1), f"{UNET}label_emb.0.0.weight": torch.zeros(1)}
    save_file(refiner, tmp_path / "refiner.safetensors")
    wrong = {
        folder("refiner", {**index, "text_encoder": [None, None], "tokenizer": [None, None]}, unet): "refiner",
        folder("inpaint", {**index, **both}, {**unet, "in_channels": 9}): "inpainting",
        str(tmp_path / "refiner.safetensors"): "refiner",
        str(tmp_path / "lora"): "holds a LoRA.*init_lora",
    }
    for base, message in wrong.items():
        with pytest.raises(UserError, match=message):
            check_models(config(base=base))
    family = find_family(bases("sdxl"))
    assert family is SDXL


def test_a_vae_of_another_scale_is_refused(bases: Bases, config: Config) -> None:
    with pytest.raises(UserError, match=r"scales latents by 0\.18215, and that of .* by 0\.13025"):
        check_models(config(base=bases("sdxl"), vae=f"{bases('sd')}/vae"))
    check_models(config(base=bases("sdxl"), vae=f"{bases('sdxl')}/vae"))


def test_the_vae_is_never_run_in_float16(bases: Bases, config: Config) -> None:
    """Its values are too large for float16: images would be black."""
    model = load_model(bases("sdxl"), CPU)
    seen: list[torch.dtype] = []
    model.vae.decoder.conv_in.register_forward_hook(lambda *each: seen.append(each[2].dtype))
    drawing = Drawing("a", "", (32, 32), 1, 1.0, None, (0, 0), "")
    draw_images(model, [drawing], config(precision="fp16"), lambda *_: None, "")
    assert seen == [torch.float32]
