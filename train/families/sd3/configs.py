"""The configs of the components of Stable Diffusion 3 and 3.5, as far as the tensors of a single file do not tell."""

import math
import re
from typing import Any

from dreamloom.train.families.clip import CLIP_CONFIGS
from dreamloom.train.model.family import Config, Shapes

TRANSFORMER = "model.diffusion_model."
_HEAD = 64
"""Width of an attention head; there are as many heads as layers."""
CONFIGS: dict[str, dict[str, Any]] = {
    "vae": {
        "_class_name": "AutoencoderKL",
        "sample_size": 1024,
        "latent_channels": 16,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "force_upcast": True,
    },
    **CLIP_CONFIGS,
    "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0},
}
"""Component → its config, as diffusers and transformers write it."""


def infer_transformer(tensors: Shapes) -> Config:
    """Infers the config of the transformer from the tensors of a file: of 3 medium, 3.5 medium or 3.5 large."""
    shapes = {name.removeprefix(TRANSFORMER): shape for name, shape in tensors.items()}
    blocks = {int(found[1]) for name in shapes if (found := re.match(r"joint_blocks\.(\d+)\.", name))}
    dual = sorted(block for block in blocks if f"joint_blocks.{block}.x_block.attn2.qkv.weight" in shapes)
    width = shapes["x_embedder.proj.weight"][0]
    return {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": shapes["x_embedder.proj.weight"][1],
        "out_channels": 16,
        "num_layers": len(blocks),
        "attention_head_dim": _HEAD,
        "num_attention_heads": width // _HEAD,
        "joint_attention_dim": 4096,
        "caption_projection_dim": width,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": math.isqrt(shapes["pos_embed"][1]),
        "dual_attention_layers": dual,
        "qk_norm": "rms_norm" if "joint_blocks.0.x_block.attn.ln_q.weight" in shapes else None,
    }
