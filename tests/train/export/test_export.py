"""Exports: what diffusers itself reads back, from both formats, is what was trained."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import single_file_utils as reference
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export
from dreamloom.train.export.older_releases import write_slow_tokenizer
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.original_keys import NoOriginalKeyError
from dreamloom.train.families.sd.original_keys import to_original_keys
from dreamloom.train.families.suit import resolve_models
from dreamloom.train.loop.loop import train
from dreamloom.train.model.safetensors_header import read_metadata, read_tensor_shapes
from dreamloom.train.run.folder import list_checkpoints
from tests.train.conftest import save_pipeline

Config = Callable[..., TrainConfig]

SHAPES: dict[str, dict[str, Any]] = {
    "sd 1": {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "layers_per_block": 2,
    },
    "sd 2": {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "layers_per_block": 2,
        "use_linear_projection": True,
    },
    "two levels": {
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
    },
}


def unet_of(shape: str) -> Any:
    return UNet2DConditionModel(**SHAPES[shape], attention_head_dim=4, cross_attention_dim=8, norm_num_groups=4)


def vae_of(levels: int, layers: int) -> Any:
    return AutoencoderKL(
        block_out_channels=(4, 8, 8, 8)[:levels],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=layers,
        norm_num_groups=4,
    )


def text_of(act: str) -> Any:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=50,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            hidden_act=act,
        )
    )


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("levels", "layers"), [(4, 2), (2, 1)])
def test_diffusers_finds_every_layer_under_its_original_name(shape: str, levels: int, layers: int) -> None:
    unet, vae, text = unet_of(shape), vae_of(levels, layers), text_of("gelu" if shape == "sd 2" else "quick_gelu")
    weights = to_original_keys(unet.state_dict(), vae.state_dict(), text.state_dict(), open_clip=shape == "sd 2")
    assert same(reference.convert_ldm_unet_checkpoint(dict(weights), dict(unet.config)), unet.state_dict())
    assert same(reference.convert_ldm_vae_checkpoint(dict(weights), dict(vae.config)), vae.state_dict())
    if shape == "sd 2":
        read = reference.convert_open_clip_checkpoint(text, dict(weights))
    else:
        read = reference.convert_ldm_clip_checkpoint(dict(weights))
    read = {key.removeprefix("text_model."): value for key, value in read.items()}
    assert same(read, text.state_dict())


def test_known_names_of_stable_diffusion_1() -> None:
    weights = to_original_keys(
        unet_of("sd 1").state_dict(), vae_of(4, 2).state_dict(), text_of("quick_gelu").state_dict(), open_clip=False
    )
    assert {
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight",
        "model.diffusion_model.output_blocks.2.1.conv.weight",
        "model.diffusion_model.output_blocks.8.2.conv.weight",
        "model.diffusion_model.input_blocks.3.0.op.weight",
        "first_stage_model.decoder.up.3.block.0.norm1.weight",
        "first_stage_model.encoder.mid.attn_1.q.weight",
        "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
    } <= weights.keys()
    assert weights["first_stage_model.encoder.mid.attn_1.q.weight"].ndim == 4


@pytest.mark.slow
def test_a_vae_without_original_names_is_said_to_have_none() -> None:
    with pytest.raises(NoOriginalKeyError):
        to_original_keys(unet_of("two levels").state_dict(), AutoencoderTiny().state_dict(), {}, open_clip=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: str, folder: Path, config: Config) -> Path:
    """A short run with an average, finished."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert train(folder, run, config(base=tiny_base, ema_half_life_images=4, max_train_steps=2)).finished
    return run


def test_a_damaged_checkpoint_is_not_exported(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (newest,) = list_checkpoints(run)
    shutil.copytree(newest, newest.with_name("2"))
    for name, content in (("weights.safetensors", b"truncated"), ("optimizer.pt", b"")):
        (newest / name).write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.safetensors differs from its checksum.*; name another: .*/2\."):
        export(run, tmp_path / "model", ExportConfig())
    assert not (tmp_path / "model").exists()
    (newest / "weights.safetensors").write_bytes((newest.with_name("2") / "weights.safetensors").read_bytes())
    assert export(run, tmp_path / "model", ExportConfig()).changed, "the optimizer's state is not asked for"


def test_an_export_opens_with_diffusers_and_holds_the_trained_weights(trained: Path, tmp_path: Path) -> None:
    exported = export(trained, tmp_path / "model", ExportConfig(dtype="fp32", use_ema=False))
    weights = load_file(list_checkpoints(trained)[-1] / "weights.safetensors")
    assert exported.changed and exported.single_file and exported.bytes > 0
    for pipeline in (
        StableDiffusionPipeline.from_pretrained(exported.folder),
        StableDiffusionPipeline.from_single_file(exported.single_file, config=exported.folder, local_files_only=True),
    ):
        for name in ("unet", "text_encoder"):
            own = getattr(pipeline, name).state_dict()
            trained_part = {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")}
            assert trained_part and all(torch.equal(own[key], value) for key, value in trained_part.items())
    image = pipeline("a thing", num_inference_steps=1, height=32, width=32, output_type="np").images
    assert image.shape == (1, 32, 32, 3)


def test_halves_and_averages_are_written_where_they_are_asked_for(trained: Path, tmp_path: Path) -> None:
    exported = export(list_checkpoints(trained)[-1], tmp_path / "model", ExportConfig(single_file=False))
    assert exported.single_file is None and not exported.note
    written = load_file(Path(exported.folder) / "unet" / "diffusion_pytorch_model.safetensors")
    average = load_file(list_checkpoints(trained)[-1] / "average.safetensors")
    assert all(torch.equal(written[key], average[f"unet.{key}"].half()) for key in written)
    text = load_file(Path(exported.folder) / "text_encoder" / "model.safetensors")
    assert all(key.startswith("text_model.") for key in text), "transformers before 5 look for these names"


def test_the_folder_has_the_files_that_transformers_4_reads(trained: Path, tmp_path: Path) -> None:
    folder = Path(export(trained, tmp_path / "model", ExportConfig(single_file=False)).folder)
    tokenizer = folder / "tokenizer"
    vocabulary = json.loads((tokenizer / "vocab.json").read_text())
    merges = (tokenizer / "merges.txt").read_text().splitlines()[1:]
    special = json.loads((tokenizer / "special_tokens_map.json").read_text())
    again = CLIPTokenizer(vocab=vocabulary, merges=[tuple(m.split()) for m in merges], model_max_length=24, **special)
    captions = ["a thing", "a red thing, twice!"]
    assert again(captions).input_ids == CLIPTokenizer.from_pretrained(tokenizer)(captions).input_ids
    assert special["pad_token"] == "<|endoftext|>"
    assert json.loads((folder / "text_encoder" / "config.json").read_text())["torch_dtype"] == "float16"


def test_the_whole_vocabulary_and_added_tokens_are_written(shared_data: Path, tmp_path: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(shared_data / "clip_tokenizer")
    tokenizer.add_tokens(["<cat>"])
    write_slow_tokenizer(tmp_path, tokenizer)
    for name in ("vocab.json", "special_tokens_map.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads(
            (shared_data / "clip_tokenizer" / name).read_text()
        )
    merges = [(folder / "merges.txt").read_text().split("\n") for folder in (tmp_path, shared_data / "clip_tokenizer")]
    assert [line for line in merges[0] if line] == [line for line in merges[1] if line]
    assert json.loads((tmp_path / "added_tokens.json").read_text()) == {"<cat>": 49408}


def test_a_single_file_says_what_it_is(trained: Path, tmp_path: Path) -> None:
    sample = trained / "samples" / f"{int(list_checkpoints(trained)[-1].name):09d}.png"
    exported = export(list_checkpoints(trained)[-1], tmp_path / "model", ExportConfig(title="My model"))
    assert exported.single_file
    file = Path(exported.single_file)
    spec = {key.removeprefix("modelspec."): value for key, value in read_metadata(file).items()}
    assert (spec["title"], spec["architecture"], spec["resolution"]) == ("My model", "stable-diffusion-v1", "32x32")
    assert (spec["sai_model_spec"], spec["prediction_type"]) == ("1.0.1", "epsilon")
    content = file.read_bytes()
    behind_header = content[8 + int.from_bytes(content[:8], "little") :]
    assert spec["hash_sha256"] == f"0x{hashlib.sha256(behind_header).hexdigest()}"
    assert datetime.fromisoformat(spec["date"]).timestamp() == int(
        (list_checkpoints(trained)[-1] / "state.json").stat().st_mtime
    )
    assert sample.exists()
    with Image.open(io.BytesIO(base64.b64decode(spec["thumbnail"].removeprefix("data:image/jpeg;base64,")))) as image:
        assert image.size == (32, 32)
    assert not file.with_suffix(".yaml").exists() and not {"v_pred", "ztsnr"} & read_tensor_shapes(file).keys()


def test_v_prediction_and_zero_terminal_snr_are_marked_and_read_back(
    folder: Path, tmp_path: Path, config: Config
) -> None:
    save_pipeline(tmp_path / "base", unet={}, vae={"levels": 3}, scheduler={"prediction_type": "v_prediction"})
    settings = config(base=str(tmp_path / "base"), zero_terminal_snr=True, max_train_steps=1)
    train(folder, tmp_path / "run", settings)
    exported = Path(export(tmp_path / "run", tmp_path / "model", ExportConfig()).folder)
    file = exported / "model.safetensors"
    assert {"v_pred", "ztsnr"} <= read_tensor_shapes(file).keys()
    assert read_metadata(file)["modelspec.prediction_type"] == "v"
    params = yaml.safe_load(file.with_suffix(".yaml").read_text())["model"]["params"]
    assert params["parameterization"] == "v" and params["unet_config"]["params"]["channel_mult"] == [1, 2]
    unet = UNet2DConditionModel.from_single_file(str(file), original_config=str(file.with_suffix(".yaml")))
    assert unet.config.block_out_channels == [32, 64] and unet.config.layers_per_block == 1
    for model in (exported, file):  # a model that ends in pure noise is measured and trained that way
        loaded = load_model(str(model), torch.device("cpu"))
        last = loaded.schedule.alphas_cumprod_at(torch.tensor([999]))
        assert loaded.prediction_type == "v_prediction" and float(last) == pytest.approx(0, abs=1e-6)
    resolved = resolve_models(config(base=str(exported)))
    assert resolved.zero_terminal_snr and resolved.min_snr_gamma is None
    with pytest.raises(UserError, match="min_snr_gamma null"):
        resolve_models(config(base=str(exported), min_snr_gamma=5))


def test_the_same_export_is_not_made_twice_and_another_one_replaces_it(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    assert export(trained, target, ExportConfig(single_file=False)).changed
    assert not export(trained, target, ExportConfig(single_file=False)).changed
    replaced = export(trained, target, ExportConfig())
    assert replaced.changed and replaced.single_file


def test_an_export_that_is_there_needs_no_torch(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "model", ExportConfig(single_file=False))
    code = (
        "import sys; from dreamloom.train.export.config import ExportConfig\n"
        "from dreamloom.train.export.export import export\n"
        f"summary = export({str(trained)!r}, {str(tmp_path / 'model')!r}, ExportConfig(single_file=False))\n"
        "print(summary.changed, 'torch' in sys.modules)"
    )
    house = Path(__file__).parents[3]
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=house)
    assert process.stdout.strip() == "False False"


@pytest.mark.slow
def test_a_vae_without_original_names_exports_in_diffusers_format_alone(
    tiny_base: str, folder: Path, tmp_path: Path, shared_data: Path, config: Config
) -> None:
    vae = str(shared_data / "taesd" / "taesd_diffusers_fp16")
    run = tmp_path / "run"
    train(
        folder,
        run,
        config(
            base=tiny_base,
            vae=vae,
            max_train_steps=1,
            text_encoder_learning_rate=0,
            bucket_reso_steps=16,
            resolution=32,
        ),
    )
    exported = export(run, tmp_path / "model", ExportConfig())
    assert exported.single_file is None and "AutoencoderTiny" in exported.note
    assert isinstance(StableDiffusionPipeline.from_pretrained(exported.folder).vae, AutoencoderTiny)


def test_nothing_of_the_users_is_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not an export"):
        export(trained, tmp_path, ExportConfig())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_model_that_is_no_run_is_the_users_error(tiny_base: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run nor a checkpoint"):
        export(Path(tiny_base), tmp_path / "model", ExportConfig())
    with pytest.raises(UserError, match=r"There is no .*missing; name a run"):
        export(tmp_path / "missing", tmp_path / "model", ExportConfig())
