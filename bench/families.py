"""A model of each family, in its real shape and in a tiny one, and what diffusers' class of its denoiser takes."""

from collections.abc import Mapping
from typing import Any

import torch

from dreamloom.train.families.sd.configs import CONFIGS as SD_CONFIGS
from dreamloom.train.families.sd3.configs import CONFIGS as SD3_CONFIGS
from dreamloom.train.families.sdxl.configs import CONFIGS as SDXL_CONFIGS
from dreamloom.train.model.family import Config

Configs = Mapping[str, Config]
"""Component → its config, with that of a scheduler of diffusers."""
_TOKENS, _T5_TOKENS = 77, 256
_SIDE = 512
"""Of the images whose sizes Stable Diffusion XL is told, in pixels; any would do."""


def changed(configs: Configs, **parts: Config) -> Configs:
    """Returns configs of which some components are otherwise."""
    return {**configs, **{name: {**configs[name], **changes} for name, changes in parts.items()}}


REAL: Mapping[str, Configs] = {
    "sd": SD_CONFIGS[768],
    "sdxl": SDXL_CONFIGS,
    "sd3": {
        **SD3_CONFIGS,
        "transformer": {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
    },
}
"""Name of a family → Stable Diffusion 1.5, XL, or 3.5 medium without T5."""

_FIRST = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
          "projection_dim": 64}  # fmt: skip
_SECOND = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
           "projection_dim": 128}  # fmt: skip
_VAE = {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1, "sample_size": 64}
_UNET = {"sample_size": 8, "block_out_channels": [64, 128, 192], "transformer_layers_per_block": [1, 1, 2],
         "attention_head_dim": [2, 4, 6], "cross_attention_dim": 192, "addition_time_embed_dim": 32,
         "projection_class_embeddings_input_dim": 6 * 32 + 128}  # fmt: skip
_TRANSFORMER = {"sample_size": 8, "num_layers": 3, "attention_head_dim": 32, "num_attention_heads": 4,
                "joint_attention_dim": 256, "caption_projection_dim": 128, "pooled_projection_dim": 192,
                "pos_embed_max_size": 16, "dual_attention_layers": (0, 1)}  # fmt: skip
TINY: Mapping[str, Configs] = {
    "sdxl": changed(SDXL_CONFIGS, unet=_UNET, vae=_VAE, text_encoder=_FIRST, text_encoder_2=_SECOND),
    "sd3": changed(REAL["sd3"], transformer=_TRANSFORMER, vae=_VAE, text_encoder=_FIRST, text_encoder_2=_SECOND),
}
"""Name of a family → a shape for processors; that of sd is the demo's model."""


def denoiser_arguments(denoiser: Any, images: int, tokens: int = _TOKENS) -> dict[str, Any]:
    """Makes what the class of diffusers takes beside noisy latents and timesteps: random numbers in the right shapes.

    Args:
        denoiser: a network of diffusers, of any family.
        images: in the batch.
        tokens: of CLIP.
    """
    config = denoiser.config
    if "joint_attention_dim" in config:
        states = torch.randn(images, tokens + _T5_TOKENS, config.joint_attention_dim)
        return {
            "encoder_hidden_states": states,
            "pooled_projections": torch.randn(images, config.pooled_projection_dim),
        }
    arguments: dict[str, Any] = {"encoder_hidden_states": torch.randn(images, tokens, config.cross_attention_dim)}
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        sizes = torch.tensor([[_SIDE, _SIDE, 0.0, 0.0, _SIDE, _SIDE]] * images)
        arguments["added_cond_kwargs"] = {"text_embeds": torch.randn(images, pooled), "time_ids": sizes}
    return arguments
