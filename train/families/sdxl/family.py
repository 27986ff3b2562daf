"""Stable Diffusion XL: what its files are like, and what suits it. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.clip import CLIP_EMBEDDINGS, CLIP_LAYERS, make_clip_tokenizers
from dreamloom.train.families.other_models import is_pruned_xl
from dreamloom.train.families.sdxl.configs import CONFIGS, CROSS_ATTENTION_KEY, WIDTH
from dreamloom.train.families.unet import UNET_CONVOLUTIONS, UNET_LAYERS, refuse_settings_of_sd3, unet_activation_bytes
from dreamloom.train.model.family import Config, Shapes
from dreamloom.train.model.prediction import read_prediction
from dreamloom.train.optimizers import estimates_rate
from dreamloom.train.optimizers.adafactor import ADAFACTOR
from dreamloom.train.optimizers.adamw import ADAMW

if TYPE_CHECKING:
    from torch import Tensor

_FIRST = "model.diffusion_model.input_blocks.0.0.weight"
_OF_EDM = "edm_"
"""Beginning of the tensors that tell of another noise, in files of CosXL and Playground 2.5."""
_CHANNELS = 4
"""Of the latents."""
_ACTIVATIONS = 1.88
"""What its UNet keeps for the backward pass, in that of Stable Diffusion 1.5's, counted with hooks on tensors without
memory, attention as torch's flash kernels keep it."""
_ADAPTERS = {"weight_dtype": "bf16", "gradient_checkpointing": True, "optimizer": ADAMW.name, "lora_rank": 16}
_ALL_WEIGHTS = {"weight_dtype": "bf16", "gradient_checkpointing": True, "optimizer": ADAFACTOR.name, "lora_rank": None}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "8gb": {**_ADAPTERS, "base_bits": 4, "batch_size": 1, "gradient_accumulation_steps": 4},
    "12gb": {**_ADAPTERS, "batch_size": 1, "gradient_accumulation_steps": 4},
    "16gb": {**_ADAPTERS, "batch_size": 2, "gradient_accumulation_steps": 2},
    "24gb": {**_ALL_WEIGHTS, "batch_size": 2, "gradient_accumulation_steps": 2},
    "48gb": {**_ALL_WEIGHTS, "batch_size": 8},
    "80gb": {**_ALL_WEIGHTS, "batch_size": 16},
}
"""Name of a preset → the values it sets, at 1024 pixels with frozen text encoders."""


class StableDiffusionXLFamily:
    """See dreamloom.train.model.family.Family."""

    name = "sdxl"
    title = "Stable Diffusion XL"
    denoiser = "unet"
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2")
    optional: tuple[str, ...] = ()
    classes: Mapping[str, str] = {
        "unet": "diffusers.UNet2DConditionModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModel",
        "text_encoder_2": "transformers.CLIPTextModelWithProjection",
        "tokenizer": "transformers.CLIPTokenizer",
        "tokenizer_2": "transformers.CLIPTokenizer",
    }
    pipeline = "StableDiffusionXLPipeline"
    is_flow = False
    pipeline_settings: Mapping[str, Any] = {"add_watermarker": False}
    kept_settings: Mapping[str, Any] = {"force_zeros_for_empty_prompt": True}
    adapter_layers: Mapping[str, str] = {
        "unet": UNET_LAYERS,
        "text_encoder": CLIP_LAYERS,
        "text_encoder_2": CLIP_LAYERS,
    }
    convolution_layers: Mapping[str, str] = {"unet": UNET_CONVOLUTIONS}
    embedding_keys: Mapping[str, str] = CLIP_EMBEDDINGS
    kohya_parts: Mapping[str, str] = {
        "unet": "lora_unet_",
        "text_encoder": "lora_te1_text_model_",
        "text_encoder_2": "lora_te2_text_model_",
    }
    file_prefixes: Mapping[str, str] = {
        "unet": "model.diffusion_model.",
        "text_encoder": "conditioner.embedders.0.",
        "text_encoder_2": "conditioner.embedders.1.",
        "vae": "first_stage_model.",
    }

    def owns_folder(self, index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
        """See Family. The refiner has no first text encoder; what its UNet takes may be no more than latents."""
        has_both = all((index.get(name) or [None])[0] for name in self.text_encoders)
        is_whole = denoiser.get("in_channels", _CHANNELS) == denoiser.get("out_channels", _CHANNELS)
        return "unet" in index and has_both and is_whole and "text_encoder_3" not in index

    def owns_file(self, tensors: Shapes) -> bool:
        """See Family."""
        attention, first = tensors.get(CROSS_ATTENTION_KEY, ()), tensors.get(_FIRST, ())
        has_both = all(
            any(name.startswith(self.file_prefixes[part]) for name in tensors) for part in self.text_encoders
        )
        is_plain = not is_pruned_xl(tensors) and not any(name.startswith(_OF_EDM) for name in tensors)
        return attention[1:] == (WIDTH,) and first[1:2] == (_CHANNELS,) and has_both and is_plain

    def file_config(self, file: Path, tensors: Shapes, component: str) -> Config:
        """See Family."""
        config = CONFIGS[component]
        return {**config, **read_prediction(file, tensors)} if component == "scheduler" else config

    def check(self, config: TrainConfig, denoiser: Config, vae: Config) -> None:
        """See Family."""
        refuse_settings_of_sd3(config, self.title)
        if config.clip_skip != 1:
            raise UserError(
                f"clip_skip is {config.clip_skip}, but {self.title} always sees the last layer but one of its text "
                "encoders; leave clip_skip out."
            )

    def defaults(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """See Family. As in sd-scripts' docs, the text encoders are frozen, and all weights learn at 4e-7."""
        preset = PRESETS.get(str(given.get("preset")), {})
        chosen: dict[str, Any] = {
            "resolution": 1024,
            "guidance_scale": 5.0,
            "text_encoder_learning_rate": 0.0,
            **preset,
        }
        if not {**chosen, **given}.get("lora_rank") and not estimates_rate(given.get("optimizer")):
            chosen["learning_rate"] = 4e-7
        return chosen

    def activation_bytes(self, config: TrainConfig, denoiser: Config, latent_pixels: float, precision: str) -> int:
        """See Family."""
        return unet_activation_bytes(config, denoiser, latent_pixels, precision, _ACTIVATIONS)

    def model_class(self) -> type[Any]:
        """See Family."""
        from dreamloom.train.families.sdxl.model import StableDiffusionXL

        return StableDiffusionXL

    def file_tokenizers(self, configs: Mapping[str, Config]) -> dict[str, Any]:
        """See Family."""
        return make_clip_tokenizers()

    def read_file_weights(
        self, weights: "Mapping[str, Tensor]", shapes: "Mapping[str, Mapping[str, Tensor]]"
    ) -> "dict[str, dict[str, Tensor]]":
        """See Family."""
        from dreamloom.train.families.sdxl.original_keys import from_original_keys

        return from_original_keys(weights, shapes)


SDXL = StableDiffusionXLFamily()
