"""The configs of the components of Stable Diffusion XL, which a single file does not hold."""

from typing import Any

from dreamloom.train.families.clip import CLIP_CONFIGS

CROSS_ATTENTION_KEY = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
"""A tensor of every model of this family, [640, width of both text encoders' hidden states]."""
WIDTH = 2048
"""Of both text encoders' hidden states."""
CONFIGS: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 128,
        "in_channels": 4,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": WIDTH,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "sample_size": 1024,
        "latent_channels": 4,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "scaling_factor": 0.13025,
        "force_upcast": True,
    },
    **CLIP_CONFIGS,
    "scheduler": {
        "_class_name": "EulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "leading",
    },
}
"""Component → its config, as diffusers and transformers write it."""
