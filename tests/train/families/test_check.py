"""What is wrong with a model or a config is said in a sentence, before torch is loaded."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.check import check_models
from dreamloom.train.families.sd.configs import CROSS_ATTENTION_KEY
from dreamloom.train.model.weight_files import list_safetensors, weight_variant

Config = Callable[..., TrainConfig]


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture
def model(tiny_base: str, tmp_path: Path) -> Path:
    """A copy of the tiny model's JSON files."""
    weights = shutil.ignore_patterns("*.safetensors")
    return Path(shutil.copytree(tiny_base, tmp_path / "model", ignore=weights))


def test_a_model_that_fits_passes(model: Path, config: Config) -> None:
    check_models(config(base=str(model)))


def test_what_is_no_model_is_refused(model: Path, tmp_path: Path, config: Config) -> None:
    (tmp_path / "file.safetensors").touch()
    (tmp_path / "empty").mkdir()
    for base, message in [
        (tmp_path / "missing", "neither a folder nor a hub id"),
        ("owner/never-downloaded", "on this machine"),  # the tests run offline
        (tmp_path / "file.safetensors", "not a safetensors file"),
        (tmp_path / "empty", "lacks unet, vae"),
    ]:
        with pytest.raises(UserError, match=message):
            check_models(config(base=str(base)))
    shutil.rmtree(model / "vae")
    with pytest.raises(UserError, match="lacks vae"):
        check_models(config(base=str(model)))


@pytest.mark.parametrize(
    ("index", "unet", "message"),
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, {}, "is a part of Stable Diffusion XL; "),
        ({"_class_name": "StableDiffusion3Pipeline"}, {}, "is a part of Stable Diffusion 3; "),
        ({"_class_name": "FluxPipeline"}, {}, "is Flux; "),
        ({"_class_name": "StableDiffusionInpaintPipeline"}, {"in_channels": 9}, "inpainting model"),
        ({"_class_name": "StableDiffusionInstructPix2PixPipeline"}, {"in_channels": 8}, "InstructPix2Pix"),
        ({"_class_name": "StableDiffusionDepth2ImgPipeline"}, {"in_channels": 5}, "depth-to-image"),
        ({"_class_name": "StableDiffusionUpscalePipeline"}, {"in_channels": 7}, "upscaler"),
        ({}, {"num_class_embeds": 1000}, "takes more than a caption"),
    ],
)
def test_a_folder_of_another_model_is_told_what_it_is(
    index: dict[str, Any], unet: dict[str, Any], message: str, model: Path, config: Config
) -> None:
    edit(model / "model_index.json", **index)
    edit(model / "unet" / "config.json", **unet)
    with pytest.raises(UserError, match=message):
        check_models(config(base=str(model)))


UNET = "model.diffusion_model."


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({CROSS_ATTENTION_KEY: [320, 768], f"{UNET}input_blocks.0.0.weight": [320, 9, 3, 3]}, "inpainting model"),
        ({CROSS_ATTENTION_KEY: [320, 768], f"{UNET}input_blocks.0.0.weight": [320, 8, 3, 3]}, "InstructPix2Pix"),
        ({CROSS_ATTENTION_KEY: [320, 1024], f"{UNET}input_blocks.0.0.weight": [320, 5, 3, 3]}, "depth-to-image"),
        ({f"{UNET}input_blocks.0.0.weight": [256, 7, 3, 3], f"{UNET}label_emb.0.0.weight": [1, 1]}, "upscaler"),
        ({"conditioner.embedders.1.model.ln_final.weight": [1280]}, "is a part of Stable Diffusion XL; "),
        ({f"{UNET}joint_blocks.0.x_block.attn.proj.weight": [1]}, "is Stable Diffusion 3 without its text encoders; "),
        ({"double_blocks.0.img_attn.proj.weight": [1]}, "is Flux; "),
        ({"lora_unet_down_blocks_0.lora_down.weight": [4, 320]}, "is a LoRA"),
        ({"unet.down_blocks.0.to_q.lora_A.weight": [4, 320]}, "is a LoRA"),
        ({"conv_in.weight": [320, 4, 3, 3], "down_blocks.0.resnets.0.conv1.weight": [1]}, "a UNet alone"),
        ({"weight": [2]}, "not a Stable Diffusion 1.x, 2.x, XL or 3"),
        ({CROSS_ATTENTION_KEY: []}, "not a Stable Diffusion 1.x, 2.x, XL or 3"),
    ],
)
def test_a_file_of_another_model_is_told_what_it_is(
    tensors: dict[str, list[int]], message: str, tmp_path: Path, config: Config
) -> None:
    header = {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}
    content = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    with pytest.raises(UserError, match=message):
        check_models(config(base=str(tmp_path / "x.safetensors")))


def header(content: bytes, size: int | None = None) -> bytes:
    return (len(content) if size is None else size).to_bytes(8, "little") + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        header(b"[" * 90_000),
        header(b'{"a":' * 90_000),
        header(b"{}", 2**40),
        header(b"{}", 2**64 - 1),
        header(b"[]"),
        header(b"1" * 10_000),
        header(b'{"a": {"shape": [1e9]}}'),
        header(b'{"a": {"shape": [-1]}}'),
        header(b'{"a": {"shape": "abc"}}'),
        header(b'{"a": 1}'),
        header(b'{"a": {"shape": [' + b"1," * 90_000 + b"1]}}"),
    ],
)
def test_a_hostile_header_is_refused(content: bytes, tmp_path: Path, config: Config) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="not a safetensors file"):
        check_models(config(base=str(tmp_path / "x.safetensors")))


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"])
def test_a_pointer_in_place_of_a_components_weights_is_told(file: str, model: Path, config: Config) -> None:
    (model / file).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(UserError, match=f"{file} .*it is a pointer of Git LFS; run `git lfs pull`"):
        check_models(config(base=str(model)))
    if file.startswith("vae"):
        own = shutil.copytree(model / "vae", model.parent / "own")
        (model / file).unlink()
        with pytest.raises(UserError, match=r"own/.* a pointer of Git LFS"):
            check_models(config(base=str(model), vae=str(own)))
    else:  # what is not loaded beside whole ones
        (model / file).rename((model / file).with_suffix(".bin"))
        (model / file).write_bytes(header(b"{}"))
        check_models(config(base=str(model)))


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "vae/config.json"])
@pytest.mark.parametrize("content", ["[" * 90_000, "[]", "{" + " " * 2**21 + "}", "\0", '{"a": ' * 90_000])
def test_a_hostile_config_is_refused(file: str, content: str, model: Path, config: Config) -> None:
    (model / file).write_text(content)
    with pytest.raises(UserError, match="copy the model again"):
        check_models(config(base=str(model)))


def test_a_mistyped_path_is_not_taken_for_a_model_of_the_hub(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    (tmp_path / "models").mkdir()
    for name in ("models/sd15", "NONSENSE", "./sd15/x", "../models", "owner/sd15.safetensors"):
        for settings in ({"base": name}, {"base": "owner/name", "vae": name}):
            with pytest.raises(UserError, match="There is no model"):
                check_models(config(**settings))
    check_models(config(base="owner/name"))  # it may be on the hub
    (tmp_path / "hub" / "models--models--sd15").mkdir(parents=True)
    check_models(config(base="models/sd15"))  # it was downloaded under this name


def test_weights_are_found_whatever_their_variant(tmp_path: Path) -> None:
    for name in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.non_ema.safetensors"):
        (tmp_path / name).touch()
    assert weight_variant(tmp_path) == "fp16"
    assert [file.name for file in list_safetensors(tmp_path)] == ["diffusion_pytorch_model.fp16.safetensors"]
    (tmp_path / "diffusion_pytorch_model-00001-of-00002.safetensors").touch()
    assert weight_variant(tmp_path) is None and len(list_safetensors(tmp_path)) == 1
    assert weight_variant(tmp_path / "missing") is None


def test_a_shard_that_is_not_there_is_named(model: Path, config: Config) -> None:
    first, second = (f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2))
    index = model / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": first, "b": second}}))
    save_file({"a": torch.zeros(1)}, model / "unet" / first)
    with pytest.raises(UserError, match=rf"unet lacks {second}, which {index.name} names; copy the model again"):
        check_models(config(base=str(model)))
    save_file({"b": torch.zeros(1)}, model / "unet" / second)
    check_models(config(base=str(model)))


def test_half_a_model_of_two_encoders_is_refused(model: Path, config: Config) -> None:
    edit(model / "model_index.json", text_encoder_2=["transformers", "CLIPTextModelWithProjection"])
    with pytest.raises(UserError, match="lacks text_encoder_2, tokenizer_2"):
        check_models(config(base=str(model)))


def test_a_broken_file_is_named(model: Path, config: Config) -> None:
    (model / "unet" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"unet/config\.json"):
        check_models(config(base=str(model)))


def test_a_vae_must_be_one_and_fit(model: Path, config: Config) -> None:
    with pytest.raises(UserError, match="not a VAE"):
        check_models(config(base=str(model), vae=str(model / "unet")))
    edit(model / "vae" / "config.json", latent_channels=16)
    with pytest.raises(UserError, match="16"):
        check_models(config(base=str(model)))
    edit(model / "vae" / "config.json", latent_channels=4, block_out_channels=[8] * 6)
    with pytest.raises(UserError, match="bucket_reso_steps is 8"):
        check_models(config(base=str(model)))


def test_zero_terminal_snr_needs_v_prediction(model: Path, config: Config) -> None:
    with pytest.raises(UserError, match="v_prediction"):
        check_models(config(base=str(model), zero_terminal_snr=True, min_snr_gamma=None))
    edit(model / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    check_models(config(base=str(model), zero_terminal_snr=True, min_snr_gamma=None))


def test_a_base_that_predicts_something_else_is_refused(model: Path, config: Config) -> None:
    edit(model / "scheduler" / "scheduler_config.json", prediction_type="sample")
    with pytest.raises(UserError, match="predicts 'sample', and models of epsilon and v_prediction"):
        check_models(config(base=str(model)))
    check_models(config(base=str(model), prediction_type="epsilon"))


def test_a_scheduler_of_another_kind_is_refused(model: Path, config: Config) -> None:
    edit(model / "scheduler" / "scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler")
    with pytest.raises(UserError, match="for rectified flows, and its model is of Stable Diffusion"):
        check_models(config(base=str(model)))


@pytest.mark.parametrize(
    "changes",
    [{"num_train_timesteps": n} for n in (0, 10**9, "1000")]
    + [{"beta_start": -1}, {"beta_end": 2}, {"beta_end": float("nan")}],
)
def test_a_scheduler_that_makes_no_schedule_is_refused(changes: dict[str, Any], model: Path, config: Config) -> None:
    edit(model / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(UserError, match=r"makes no noise schedule .* copy the scheduler_config"):
        check_models(config(base=str(model)))


def test_timesteps_must_lie_in_the_schedule(model: Path, config: Config) -> None:
    check_models(config(base=str(model), max_timestep=999))
    with pytest.raises(UserError, match="0 to 999"):
        check_models(config(base=str(model), max_timestep=1000))


@pytest.mark.parametrize(
    "changes",
    [
        {"resolution": 500},
        {"batch_size": 0},
        {"flips": 0.5},
        {"pad_color": "white"},
        {"pad_color": "#ffffff", "crop_jitter": 0.02},
        {"zero_terminal_snr": True, "prediction_type": "epsilon", "min_snr_gamma": None},
        {"zero_terminal_snr": True, "prediction_type": "v_prediction", "min_snr_gamma": 5},
        {
            "zero_terminal_snr": True,
            "prediction_type": "v_prediction",
            "min_snr_gamma": None,
            "debiased_estimation_loss": True,
        },
        {"debiased_estimation_loss": True, "min_snr_gamma": 5},
        {"min_timestep": 500, "max_timestep": 499},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(**changes)


@pytest.mark.parametrize(
    "changes", [{"debiased_estimation_loss": True}, {"zero_terminal_snr": True, "prediction_type": "v_prediction"}]
)
def test_what_weighs_otherwise_takes_the_place_of_min_snr(changes: dict[str, Any]) -> None:
    assert TrainConfig(**changes).min_snr_gamma is None
    assert TrainConfig().min_snr_gamma == 5
    assert TrainConfig.model_validate({"min_snr_gamma": None}).min_snr_gamma is None


def test_configs_and_checks_need_no_torch() -> None:
    code = (
        "import sys, dreamloom.train.loop.loop, dreamloom.train.evaluate.evaluate\n"
        "import dreamloom.train.export.export, dreamloom.train.plan, dreamloom.train.families.check\n"
        "heavy = ('torch', 'diffusers', 'transformers', 'matplotlib', 'cv2', 'safetensors', 'prefect', 'open_clip')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    house = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=house)
    assert done.stdout.strip() == "[]"


def test_patterns_that_freeze_everything_are_refused(tiny_base: str, config: Config) -> None:
    """Before the images are encoded, and by the plan."""
    everything = config(base=tiny_base, frozen=["unet.*", "text_encoder.*"])
    with pytest.raises(UserError, match="frozen leaves nothing to train"):
        check_models(everything)
    check_models(everything.model_copy(update={"embeddings": ["zorp=a"]}))
    check_models(config(base=tiny_base, frozen=["unet.*"]))
