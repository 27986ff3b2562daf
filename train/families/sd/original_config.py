"""The .yaml of Stable Diffusion's original code, which A1111 and others look for beside a single file.

A1111 takes any file for Stable Diffusion 1 predicting noise, unless its tensors or this file say otherwise. Its
values are those of v1-inference.yaml (CompVis/stable-diffusion) and v2-inference-v.yaml (Stability-AI/stablediffusion),
as far as they describe the model.
"""

from typing import Any

import yaml

from dreamloom.train.model.model import Model

_LDM = "ldm.modules"


def original_config(model: Model, is_version_2: bool) -> str:
    """Returns the YAML of a model's original config."""
    noise = model.scheduler.config
    params: dict[str, Any] = {
        "linear_start": noise.beta_start,
        "linear_end": noise.beta_end,
        "num_timesteps_cond": 1,
        "log_every_t": 200,
        "timesteps": noise.num_train_timesteps,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": model.denoiser.config.sample_size,
        "channels": model.denoiser.config.in_channels,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "monitor": "val/loss_simple_ema",
        "scale_factor": model.vae.config.scaling_factor,
        "use_ema": False,
        "unet_config": {"target": f"{_LDM}.diffusionmodules.openaimodel.UNetModel", "params": _unet(model)},
        "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL", "params": _vae(model)},
        "cond_stage_config": _text_encoder(is_version_2),
    }
    if model.prediction_type == "v_prediction":
        params = {"parameterization": "v", **params}
    top = {"base_learning_rate": 1e-4, "target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}
    return str(yaml.safe_dump({"model": top}, sort_keys=False))


def _unet(model: Model) -> dict[str, Any]:
    config = model.denoiser.config
    widths, kinds = config.block_out_channels, config.down_block_types
    heads = config.attention_head_dim  # a name of diffusers' past: it is the number of heads
    params = {
        "image_size": 32,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "model_channels": widths[0],
        "attention_resolutions": [2**level for level, kind in enumerate(kinds) if kind.startswith("CrossAttn")][::-1],
        "num_res_blocks": config.layers_per_block,
        "channel_mult": [width // widths[0] for width in widths],
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": config.cross_attention_dim,
        "use_checkpoint": True,
        "legacy": False,
    }
    if config.use_linear_projection:
        params["use_linear_in_transformer"] = True
    if isinstance(heads, int):
        return {**params, "num_heads": heads}
    return {**params, "num_head_channels": widths[0] // heads[0]}


def _vae(model: Model) -> dict[str, Any]:
    config = model.vae.config
    widths = config.block_out_channels
    return {
        "embed_dim": config.latent_channels,
        "monitor": "val/rec_loss",
        "ddconfig": {
            "double_z": True,
            "z_channels": config.latent_channels,
            "resolution": 256,
            "in_channels": config.in_channels,
            "out_ch": config.out_channels,
            "ch": widths[0],
            "ch_mult": [width // widths[0] for width in widths],
            "num_res_blocks": config.layers_per_block,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
        "lossconfig": {"target": "torch.nn.Identity"},
    }


def _text_encoder(is_version_2: bool) -> dict[str, Any]:
    if not is_version_2:
        return {"target": f"{_LDM}.encoders.modules.FrozenCLIPEmbedder"}
    params = {"freeze": True, "layer": "penultimate"}
    return {"target": f"{_LDM}.encoders.modules.FrozenOpenCLIPEmbedder", "params": params}
