"""The configs of the components of Stable Diffusion 1.x and 2.x, which a single file does not hold."""

from typing import Any

from dreamloom.train.families.clip import CLIP_TEXT

CROSS_ATTENTION_KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
"""A tensor of every Stable Diffusion model, [320, width of the text encoder's hidden states]."""
_SD1, _SD2 = 768, 1024
"""Widths of the text encoder's hidden states."""

_UNET = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
_VAE = {
    "_class_name": "AutoencoderKL",
    "sample_size": 512,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "scaling_factor": 0.18215,
}
_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
CONFIGS: dict[int, dict[str, dict[str, Any]]] = {
    _SD1: {
        "unet": {**_UNET, "in_channels": 4, "cross_attention_dim": _SD1, "attention_head_dim": 8},
        "vae": _VAE,
        "text_encoder": {
            **CLIP_TEXT,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_act": "quick_gelu",
            "pad_token_id": 49407,
        },
        "scheduler": {**_SCHEDULER, "prediction_type": "epsilon"},
    },
    _SD2: {
        "unet": {
            **_UNET,
            "in_channels": 4,
            "cross_attention_dim": _SD2,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        "vae": _VAE,
        "text_encoder": {
            **CLIP_TEXT,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,  # of the file's 24: it was trained on the hidden states of the last but one
            "num_attention_heads": 16,
            "hidden_act": "gelu",
            "projection_dim": 512,
            "pad_token_id": 0,
        },
        "scheduler": {**_SCHEDULER, "prediction_type": None},
    },
}
"""Width of the text encoder's hidden states → component → its config, as diffusers and transformers write it."""
