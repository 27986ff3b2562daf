"""Stable Diffusion 1.x and 2.x: what their files are like, and what suits them. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.clip import CLIP_LAYERS
from dreamloom.train.families.other_models import describe_folder
from dreamloom.train.families.sd.configs import CONFIGS, CROSS_ATTENTION_KEY
from dreamloom.train.families.unet import UNET_CONVOLUTIONS, UNET_LAYERS, refuse_settings_of_sd3, unet_activation_bytes
from dreamloom.train.model.family import Config, Shapes
from dreamloom.train.model.prediction import read_prediction

if TYPE_CHECKING:
    from torch import Tensor

_LABELS = "model.diffusion_model.label_emb.0.0.weight"
"""A tensor of UNets that take more than a caption: Stable Diffusion XL's, upscalers', unCLIP's."""
_FIRST = "model.diffusion_model.input_blocks.0.0.weight"
_CHANNELS = 4
"""Of the latents."""


class StableDiffusionFamily:
    """See dreamloom.train.model.family.Family."""

    name = "sd"
    title = "Stable Diffusion 1.x and 2.x"
    denoiser = "unet"
    text_encoders: tuple[str, ...] = ("text_encoder",)
    optional: tuple[str, ...] = ()
    classes: Mapping[str, str] = {
        "unet": "diffusers.UNet2DConditionModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModel",
        "tokenizer": "transformers.CLIPTokenizer",
    }
    pipeline = "StableDiffusionPipeline"
    is_flow = False
    pipeline_settings: Mapping[str, Any] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    kept_settings: Mapping[str, Any] = {}
    adapter_layers: Mapping[str, str] = {"unet": UNET_LAYERS, "text_encoder": CLIP_LAYERS}
    convolution_layers: Mapping[str, str] = {"unet": UNET_CONVOLUTIONS}
    embedding_keys: Mapping[str, str] = {"text_encoder": "emb_params"}
    kohya_parts: Mapping[str, str] = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    file_prefixes: Mapping[str, str] = {
        "unet": "model.diffusion_model.",
        "text_encoder": "cond_stage_model.",
        "vae": "first_stage_model.",
    }

    def owns_folder(self, index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
        """See Family. A pipeline of any name is taken, if its UNet is given a caption and latents alone."""
        return "unet" in index and describe_folder(index, denoiser) is None

    def owns_file(self, tensors: Shapes) -> bool:
        """See Family."""
        width, channels = _second(tensors, CROSS_ATTENTION_KEY), _second(tensors, _FIRST)
        return width in CONFIGS and channels == _CHANNELS and _LABELS not in tensors

    def file_config(self, file: Path, tensors: Shapes, component: str) -> Config:
        """See Family."""
        config = CONFIGS[_second(tensors, CROSS_ATTENTION_KEY)][component]
        return {**config, **read_prediction(file, tensors)} if component == "scheduler" else config

    def check(self, config: TrainConfig, denoiser: Config, vae: Config) -> None:
        """See Family."""
        refuse_settings_of_sd3(config, self.title)
        if config.text_encoder_2_learning_rate is not None:
            raise UserError(f"{self.title} have one text encoder; leave text_encoder_2_learning_rate out.")

    def defaults(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """See Family. The defaults of TrainConfig are for this family."""
        return {}

    def activation_bytes(self, config: TrainConfig, denoiser: Config, latent_pixels: float, precision: str) -> int:
        """See Family."""
        return unet_activation_bytes(config, denoiser, latent_pixels, precision)

    def model_class(self) -> type[Any]:
        """See Family."""
        from dreamloom.train.families.sd.model import StableDiffusion

        return StableDiffusion

    def file_tokenizers(self, configs: Mapping[str, Config]) -> dict[str, Any]:
        """See Family."""
        from dreamloom.train.model.clip_tokenizer import make_clip_tokenizer

        # Stable Diffusion 2 pads with token 0, which is "!"; so does the tokenizer that was published with it
        padding = "!" if configs["text_encoder"]["pad_token_id"] == 0 else "<|endoftext|>"
        return {"text_encoder": make_clip_tokenizer(padding)}

    def read_file_weights(
        self, weights: "Mapping[str, Tensor]", shapes: "Mapping[str, Mapping[str, Tensor]]"
    ) -> "dict[str, dict[str, Tensor]]":
        """See Family."""
        from dreamloom.train.families.sd.original_keys import from_original_keys

        return from_original_keys(weights, shapes)


def _second(tensors: Shapes, name: str) -> int:
    shape = tensors.get(name, ())
    return shape[1] if len(shape) > 1 else 0


SD = StableDiffusionFamily()
