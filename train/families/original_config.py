"""The .yaml of Stable Diffusion's original code, which A1111 and others look for beside a single file.

A1111 takes any file for Stable Diffusion 1 or XL predicting noise, unless its tensors or this file say otherwise. Its
values are those of v1-inference.yaml (CompVis/stable-diffusion), v2-inference-v.yaml (Stability-AI/stablediffusion) and
sd_xl_base.yaml (Stability-AI/generative-models), as far as they describe the model.
"""

from typing import Any

import yaml

from dreamloom.train.model.model import Model

_LDM, _SGM = "ldm.modules", "sgm.modules"


def ldm_config(model: Model, is_version_2: bool) -> str:
    """Returns the YAML of a model of Stable Diffusion 1 or 2."""
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


def sgm_config(model: Model) -> str:
    """Returns the YAML of a model of Stable Diffusion XL."""
    noise, kind = model.scheduler.config, "V" if model.prediction_type == "v_prediction" else "Eps"
    parts, sizes = f"{_SGM}.diffusionmodules", model.denoiser.config.addition_time_embed_dim
    denoiser = {
        "num_idx": noise.num_train_timesteps,
        "weighting_config": {"target": f"{parts}.denoiser_weighting.{kind}Weighting"},
        "scaling_config": {"target": f"{parts}.denoiser_scaling.{kind}Scaling"},
        "discretization_config": {
            "target": f"{parts}.discretizer.LegacyDDPMDiscretization",
            "params": {"linear_start": noise.beta_start, "linear_end": noise.beta_end},
        },
    }
    embedders = [
        _embedder("txt", "FrozenCLIPEmbedder", _FIRST_OF_XL),
        _embedder("txt", "FrozenOpenCLIPEmbedder2", _SECOND_OF_XL),
        _embedder("original_size_as_tuple", "ConcatTimestepEmbedderND", {"outdim": sizes}),
        _embedder("crop_coords_top_left", "ConcatTimestepEmbedderND", {"outdim": sizes}),
        _embedder("target_size_as_tuple", "ConcatTimestepEmbedderND", {"outdim": sizes}),
    ]
    params = {
        "scale_factor": model.vae.config.scaling_factor,
        "disable_first_stage_autocast": True,
        "denoiser_config": {"target": f"{parts}.denoiser.DiscreteDenoiser", "params": denoiser},
        "network_config": {"target": f"{parts}.openaimodel.UNetModel", "params": _unet_of_xl(model)},
        "conditioner_config": {"target": f"{_SGM}.GeneralConditioner", "params": {"emb_models": embedders}},
        "first_stage_config": {"target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper", "params": _vae(model)},
    }
    top = {"target": "sgm.models.diffusion.DiffusionEngine", "params": params}
    return str(yaml.safe_dump({"model": top}, sort_keys=False))


def _embedder(key: str, name: str, params: dict[str, Any]) -> dict[str, Any]:
    target = f"{_SGM}.encoders.modules.{name}"
    return {"is_trainable": False, "input_key": key, "target": target, "params": params}


_FIRST_OF_XL: dict[str, Any] = {"layer": "hidden", "layer_idx": 11}
_SECOND_OF_XL: dict[str, Any] = {
    "arch": "ViT-bigG-14",
    "version": "laion2b_s39b_b160k",
    "freeze": True,
    "layer": "penultimate",
    "always_return_pooled": True,
    "legacy": False,
}


def _unet_of_xl(model: Model) -> dict[str, Any]:
    config = model.denoiser.config
    return {
        **{name: value for name, value in _unet(model).items() if name != "image_size"},
        "adm_in_channels": config.projection_class_embeddings_input_dim,
        "num_classes": "sequential",
        "transformer_depth": list(config.transformer_layers_per_block),
        "spatial_transformer_attn_type": "softmax",
    }


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
