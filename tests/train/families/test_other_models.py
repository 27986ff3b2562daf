"""What people also have on their disks beside whole models is told from its names alone, in a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.check import check_models
from dreamloom.train.families.sd3.configs import TRANSFORMER
from dreamloom.train.families.sdxl.configs import CROSS_ATTENTION_KEY
from dreamloom.train.families.suit import resolve_models

UNET = "model.diffusion_model."
DEEP = f"{UNET}input_blocks.8.1.transformer_blocks."
XL: dict[str, tuple[int, ...]] = {
    CROSS_ATTENTION_KEY: (640, 2048),
    f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
    f"{UNET}label_emb.0.0.weight": (1280, 2816),
    f"{DEEP}0.attn2.to_k.weight": (1280, 2048),
    f"{DEEP}9.attn2.to_k.weight": (1280, 2048),
    "conditioner.embedders.0.transformer.text_model.x": (1,),
    "conditioner.embedders.1.model.x": (1,),
}
FLOW: dict[str, tuple[int, ...]] = {
    f"{TRANSFORMER}joint_blocks.0.x_block.attn.qkv.weight": (4608, 1536),
    f"{TRANSFORMER}x_embedder.proj.weight": (1536, 16, 2, 2),
    f"{TRANSFORMER}pos_embed": (1, 36864, 1536),
    "text_encoders.clip_l.x": (1,),
    "text_encoders.clip_g.x": (1,),
}


def write_header(file: Path, tensors: dict[str, tuple[int, ...]]) -> str:
    """Writes a safetensors file that is its header alone."""
    header = {k: {"dtype": "F16", "shape": list(v), "data_offsets": [0, 0]} for k, v in tensors.items()}
    content = json.dumps(header).encode()
    file.write_bytes(len(content).to_bytes(8, "little") + content)
    return str(file)


@pytest.mark.parametrize(
    "tensors",
    [
        XL | {"model_ema.decay": (), "model_ema.diffusion_modelinput_blocks00weight": (320, 4, 3, 3)},
        XL | {"v_pred": (0,), "ztsnr": (0,)},
        FLOW,
    ],
)
def test_files_as_people_have_them_are_taken(tensors: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    config = resolve_models(TrainConfig(base=write_header(tmp_path / "x.safetensors", tensors)))
    check_models(config)
    assert config.resolution == 1024 and config.zero_terminal_snr == ("ztsnr" in tensors)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (XL | {"edm_vpred.sigma_max": ()}, "EDM's noise"),
        (XL | {"edm_mean": (1,), "edm_std": (1,)}, "EDM's noise"),
        ({k: v for k, v in XL.items() if "blocks.9" not in k}, "a smaller Stable Diffusion XL.* diffusers folder"),
        ({k: v for k, v in XL.items() if k.startswith(UNET)}, "a UNet alone"),
        (XL | {f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}, "an inpainting model"),
        (XL | {f"{CROSS_ATTENTION_KEY}.absmax": (1,)}, "quantized"),
        (XL | {f"{UNET}time_embed.cond_proj.weight": (320, 256)}, "a latent consistency model"),
        (FLOW | {f"{TRANSFORMER}joint_blocks.0.x_block.attn.qkv.scale_weight": ()}, "quantized"),
        (FLOW | {"scaled_fp8": (0,)}, "quantized"),
        (FLOW | {f"{TRANSFORMER}x_embedder.proj.weight": (1536, 33, 2, 2)}, "takes 33 channels and gives 16"),
        ({k: v for k, v in FLOW.items() if "clip" not in k}, "without its text encoders"),
        ({"lycoris_transformer_blocks_0_attn_to_k.lokr_w1": (1, 1)}, "a LoRA"),
        ({"lora_transformer_x.lora_down.weight": (1, 1)}, "a LoRA"),
        ({"ip_adapter.1.to_k_ip.weight": (1,)}, "an IP-Adapter"),
        ({"controlnet_down_blocks.0.weight": (1,), "down_blocks.0.x": (1,), "conv_in.x": (1,)}, "a ControlNet"),
        ({"encoder.block.0.layer.0.SelfAttention.q.weight": (1,), "shared.weight": (1,)}, "a text encoder alone"),
        ({"text_model.encoder.layers.0.mlp.fc1.weight": (1,)}, "a text encoder alone"),
        ({"encoder.conv_in.weight": (1,), "decoder.conv_in.weight": (1,)}, "a VAE alone"),
        ({"clip_l": (3, 768), "clip_g": (3, 1280)}, "a textual inversion"),
    ],
)
def test_other_files_are_refused_by_name(tensors: dict[str, tuple[int, ...]], message: str, tmp_path: Path) -> None:
    config = TrainConfig(base=write_header(tmp_path / "x.safetensors", tensors))
    with pytest.raises(UserError, match=message):
        check_models(resolve_models(config))


@pytest.mark.parametrize("suffix", [".gguf", ".pt", ".bin", ".pth", ".onnx"])
def test_files_of_other_formats_are_no_models(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x{suffix}").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"is not a model; name a diffusers folder, a \.safetensors or \.ckpt"):
        check_models(TrainConfig(base=str(tmp_path / f"x{suffix}")))


@pytest.mark.parametrize(
    ("family", "file", "changes", "message"),
    [
        ("sdxl", "scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "is EDMEulerScheduler"),
        ("sdxl", "unet/config.json", {"quantization_config": {"load_in_4bit": True}}, "holds quantized weights"),
        ("sd", "unet/config.json", {"time_cond_proj_dim": 256}, "a latent consistency model"),
        ("sdxl", "unet/config.json", {"time_cond_proj_dim": 256}, "a latent consistency model"),
        ("sdxl", "model_index.json", None, "is not a Stable Diffusion model in diffusers' format: it lacks"),
        ("sd3", "text_encoder_3/config.json", {"quantization_config": {}}, "holds quantized weights"),
        ("sd3", "transformer/config.json", {"in_channels": 33}, "takes 33 channels and gives 16"),
        ("sd3", "text_encoder_3", None, "lacks text_encoder_3, which its model_index.json names"),
        ("sd3", "tokenizer_3", None, "lacks tokenizer_3, which its model_index.json names"),
    ],
)
def test_folders_that_are_otherwise_are_told(
    family: str, file: str, changes: dict[str, Any] | None, message: str, bases: Callable[[str], str], tmp_path: Path
) -> None:
    folder = shutil.copytree(bases(family), tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    changed = Path(folder) / file
    if changes is None:
        shutil.rmtree(changed) if changed.is_dir() else changed.unlink()
    else:
        changed.write_text(json.dumps(json.loads(changed.read_text()) | changes))
    with pytest.raises(UserError, match=message):
        check_models(TrainConfig(base=str(folder), resolution=64, bucket_reso_steps=8))
