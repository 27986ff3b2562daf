"""Tiny random models of each family's true structure, saved as diffusers' folders."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dreamloom.train.families.parts import make_network
from dreamloom.train.model.family import Family
from tests.train.conftest import byte_tokenizer, save_pipeline

_NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _text_config(tokenizer: Any) -> dict[str, Any]:
    """What the tiny CLIPs have in common."""
    return {
        "vocab_size": len(tokenizer),
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _make_vae(**more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8,) * 3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        **more,
    )


def save_sdxl(folder: Path, scheduler: dict[str, Any] | None = None) -> None:
    """Writes a random Stable Diffusion XL: two encoders, of which the second sums up, and a UNet that is told sizes."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(1)
    first, second = byte_tokenizer(), byte_tokenizer("!")
    text = _text_config(first)
    pipeline = StableDiffusionXLPipeline(
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=(1, 2),
            attention_head_dim=(2, 4),
            cross_attention_dim=16 + 24,
            use_linear_projection=True,
            norm_num_groups=8,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 24,
        ),
        vae=_make_vae(
            latent_channels=4,
            scaling_factor=0.13025,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(hidden_size=16, hidden_act="quick_gelu", **text)),
        text_encoder_2=CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=24, hidden_act="gelu", projection_dim=24, **text)
        ),
        tokenizer=first,
        tokenizer_2=second,
        scheduler=EulerDiscreteScheduler(**{**_NOISE, "steps_offset": 1, **(scheduler or {})}),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)


def save_sd3(folder: Path, with_t5: bool = True) -> None:
    """Writes a random Stable Diffusion 3.5 medium, with dual attention and norms of queries; or 3 medium."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

    torch.manual_seed(2)
    first, second = byte_tokenizer(), byte_tokenizer("!")
    text = _text_config(first)
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((chr(97 + n), -2.0) for n in range(26))]
    t5 = T5Config(
        vocab_size=len(letters), d_model=48, d_kv=8, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    encoders = [
        CLIPTextModelWithProjection(CLIPTextConfig(hidden_size=width, projection_dim=width, hidden_act=act, **text))
        for width, act in ((16, "quick_gelu"), (24, "gelu"))
    ]
    encoders[0].text_projection.weight.data = torch.eye(16)  # as of the real one, which no file holds
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=48,
            caption_projection_dim=16,
            pooled_projection_dim=40,
            pos_embed_max_size=16,
            dual_attention_layers=(0,) if with_t5 else (),
            qk_norm="rms_norm" if with_t5 else None,
        ),
        vae=_make_vae(
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        text_encoder_3=T5EncoderModel(t5) if with_t5 else None,
        tokenizer=first,
        tokenizer_2=second,
        tokenizer_3=T5TokenizerFast(vocab=letters, extra_ids=0) if with_t5 else None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipeline.save_pretrained(folder)


def write_headers(folder: Path, family: Family, configs: Mapping[str, Any]) -> None:
    """Writes a diffusers folder of real size, whose weight files hold their headers alone."""
    for name in family.file_prefixes:
        with torch.device("meta"):
            shapes = make_network(family, name, configs[name]).state_dict()
        (folder / name).mkdir()
        header = {k: {"dtype": "F32", "shape": list(v.shape), "data_offsets": [0, 0]} for k, v in shapes.items()}
        content = json.dumps(header).encode()
        weights = "diffusion_pytorch_model" if name in ("vae", family.denoiser) else "model"
        (folder / name / f"{weights}.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
        (folder / name / "config.json").write_text(json.dumps(configs[name]))
    index = {name: class_name.split(".") for name, class_name in family.classes.items()}
    (folder / "model_index.json").write_text(json.dumps(index))


SAVE: dict[str, Callable[[Path], None]] = {
    "sd": lambda folder: save_pipeline(folder, unet={}, vae={"levels": 3}),
    "sdxl": save_sdxl,
    "sd3": save_sd3,
    "sd3 without t5": partial(save_sd3, with_t5=False),
}
"""Name of a family → what writes its model."""
FAMILIES = tuple(SAVE)
