"""Stable Diffusion 3 and 3.5: what their files are like, and what suits them. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamloom.base.errors import UserError
from dreamloom.base.images.buckets import read_folder_resolutions
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.clip import CLIP_EMBEDDINGS, CLIP_LAYERS, make_clip_tokenizers
from dreamloom.train.families.sd3.configs import CONFIGS, TRANSFORMER, infer_transformer
from dreamloom.train.model.family import Config, Shapes
from dreamloom.train.optimizers import estimates_rate
from dreamloom.train.optimizers.adafactor import ADAFACTOR
from dreamloom.train.optimizers.adamw import ADAMW

if TYPE_CHECKING:
    from torch import Tensor

_T5 = "text_encoder_3"
_LEAST_SHARE = 0.6
"""Of the side that a base was made for: below that, it is taught to draw worse."""
_OF_A_DDPM = ("debiased_estimation_loss", "zero_terminal_snr", "timestep_curriculum_power", "min_timestep")
_STORED = {"weight_dtype": "bf16", "gradient_checkpointing": True}
_ADAPTERS = {**_STORED, "optimizer": ADAMW.name, "lora_rank": 16}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "12gb": {**_ADAPTERS, "base_bits": 4, "batch_size": 1, "gradient_accumulation_steps": 4},
    "16gb": {**_ADAPTERS, "base_bits": 8, "batch_size": 1, "gradient_accumulation_steps": 4},
    "24gb": {**_ADAPTERS, "batch_size": 2, "gradient_accumulation_steps": 2},
    "48gb": {**_ADAPTERS, "batch_size": 4},
    "80gb": {**_STORED, "optimizer": ADAFACTOR.name, "lora_rank": None, "batch_size": 4},
}
"""Name of a preset → the values it sets, at 1024 pixels with frozen text encoders, T5 among them."""


class StableDiffusion3Family:
    """See dreamloom.train.model.family.Family."""

    name = "sd3"
    title = "Stable Diffusion 3"
    denoiser = "transformer"
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2", _T5)
    optional: tuple[str, ...] = (_T5, "tokenizer_3")
    classes: Mapping[str, str] = {
        "transformer": "diffusers.SD3Transformer2DModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModelWithProjection",
        "text_encoder_2": "transformers.CLIPTextModelWithProjection",
        _T5: "transformers.T5EncoderModel",
        "tokenizer": "transformers.CLIPTokenizer",
        "tokenizer_2": "transformers.CLIPTokenizer",
        "tokenizer_3": "transformers.T5TokenizerFast",
    }
    pipeline = "StableDiffusion3Pipeline"
    is_flow = True
    pipeline_settings: Mapping[str, Any] = {}
    kept_settings: Mapping[str, Any] = {}
    adapter_layers: Mapping[str, str] = {
        "transformer": r".*\.attn2?\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)",
        "text_encoder": CLIP_LAYERS,
        "text_encoder_2": CLIP_LAYERS,
    }
    convolution_layers: Mapping[str, str] = {}
    embedding_keys: Mapping[str, str] = CLIP_EMBEDDINGS
    kohya_parts: Mapping[str, str] = {
        "transformer": "lora_transformer_",  # OneTrainer's, which ComfyUI knows, for what can't be joined
        "text_encoder": "lora_te1_text_model_",
        "text_encoder_2": "lora_te2_text_model_",
    }
    file_prefixes: Mapping[str, str] = {
        "transformer": TRANSFORMER,
        "text_encoder": "text_encoders.clip_l.",
        "text_encoder_2": "text_encoders.clip_g.",
        _T5: "text_encoders.t5xxl.",
        "vae": "first_stage_model.",
    }

    def owns_folder(self, index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
        """See Family."""
        return str((index.get("transformer") or ["", ""])[1]) == "SD3Transformer2DModel"

    def owns_file(self, tensors: Shapes) -> bool:
        """See Family. Files without the CLIPs can't be told captions."""
        needed = [self.file_prefixes[part] for part in ("text_encoder", "text_encoder_2")]
        has_clips = all(any(name.startswith(prefix) for name in tensors) for prefix in needed)
        tells = ("joint_blocks.0.x_block.attn.qkv.weight", "x_embedder.proj.weight", "pos_embed")
        return all(f"{TRANSFORMER}{name}" in tensors for name in tells) and has_clips

    def file_config(self, file: Path, tensors: Shapes, component: str) -> Config:
        """See Family. A file tells nothing of T5's vocabulary, so its T5 is left out."""
        return infer_transformer(tensors) if component == "transformer" else CONFIGS.get(component, {})

    def check(self, config: TrainConfig, denoiser: Config, vae: Config) -> None:
        """See Family."""
        defaults = TrainConfig.model_fields
        wrong = [name for name in _OF_A_DDPM if getattr(config, name) != defaults[name].default]
        wrong += [name for name in ("max_timestep",) if config.max_timestep is not None]
        wrong += ["min_snr_gamma"] if config.min_snr_gamma and "min_snr_gamma" in config.model_fields_set else []
        wrong += ["prediction_type"] if config.prediction_type != "auto" else []
        wrong += ["huber_schedule"] if config.huber_schedule == "snr" else []
        if wrong:
            raise UserError(
                f"{wrong[0]} means nothing for {self.title}, which is a rectified flow; leave it out "
                "(timestep_sampling and flow_weighting are for it)."
            )
        if config.clip_skip != 1 or config.sample_scheduler:
            name = "clip_skip" if config.clip_skip != 1 else "sample_scheduler"
            raise UserError(f"{name} is not for {self.title}; leave it out.")
        if config.preset and config.preset not in PRESETS:
            raise UserError(
                f"{self.title} does not fit the preset {config.preset} by the estimate; choose "
                f"{', '.join(list(PRESETS)[:-1])} or {list(PRESETS)[-1]}, or set what fits yourself."
            )
        factor = 2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1)
        side = int(denoiser.get("sample_size", 0)) * factor
        given = {f"the resolution of {n}": s for n, s in read_folder_resolutions(config.folder_resolutions).items()}
        given |= {"resolution": config.resolution} if "resolution" in config.model_fields_set else {}
        for name, asked in given.items():
            if asked < _LEAST_SHARE * side:
                raise UserError(f"{name} is {asked}, but {config.base} draws {side} pixels; raise it.")

    def defaults(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """See Family."""
        chosen: dict[str, Any] = {"resolution": 1024, "guidance_scale": 4.5, "text_encoder_learning_rate": 0.0}
        chosen |= {"min_snr_gamma": None, **PRESETS.get(str(given.get("preset")), {})}
        if not {**chosen, **given}.get("lora_rank") and not estimates_rate(given.get("optimizer")):
            chosen["learning_rate"] = 5e-6
        return chosen

    def activation_bytes(self, config: TrainConfig, denoiser: Config, latent_pixels: float, precision: str) -> int:
        """See Family: as a transformer keeps them, 34 values a token and channel in each layer, without attention maps.

        Korthikanti et al. 2022, arXiv 2205.05198, counted for half precision; checkpointing keeps a layer's input, and
        one layer is recomputed at a time.
        """
        tokens = latent_pixels / int(denoiser.get("patch_size", 2)) ** 2
        width = int(denoiser.get("num_attention_heads", 24)) * int(denoiser.get("attention_head_dim", 64))
        layers, of_layer = int(denoiser.get("num_layers", 24)), 34 * (2 if precision == "fp32" else 1)
        kept = 2 * layers * (2 if precision == "fp32" else 1) + of_layer
        return int(tokens * width * (kept if config.gradient_checkpointing else of_layer * layers))

    def model_class(self) -> type[Any]:
        """See Family."""
        from dreamloom.train.families.sd3.model import StableDiffusion3

        return StableDiffusion3

    def file_tokenizers(self, configs: Mapping[str, Config]) -> dict[str, Any]:
        """See Family."""
        return make_clip_tokenizers()

    def read_file_weights(
        self, weights: "Mapping[str, Tensor]", shapes: "Mapping[str, Mapping[str, Tensor]]"
    ) -> "dict[str, dict[str, Tensor]]":
        """See Family."""
        from dreamloom.train.families.sd3.original_keys import from_original_keys

        return from_original_keys(weights, shapes)


SD3 = StableDiffusion3Family()
