"""Tiny random models of each family's true structure, saved as diffusers' folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.train.conftest import byte_tokenizer, save_pipeline

_NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def save_sdxl(folder: Path, scheduler: dict[str, Any] | None = None) -> None:
    """Writes a random Stable Diffusion XL: two encoders, of which the second sums up, and a UNet that is told sizes."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(1)
    first, second = byte_tokenizer(), byte_tokenizer("!")
    text: dict[str, Any] = {
        "vocab_size": len(first),
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "bos_token_id": first.bos_token_id,
        "eos_token_id": first.eos_token_id,
    }
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
        vae=AutoencoderKL(
            block_out_channels=(8,) * 3,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            norm_num_groups=4,
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


SAVE: dict[str, Callable[[Path], None]] = {
    "sd": lambda folder: save_pipeline(folder, unet={}, vae={"levels": 3}),
    "sdxl": save_sdxl,
}
"""Name of a family → what writes its model."""
FAMILIES = tuple(SAVE)
