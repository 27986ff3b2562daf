"""The component configs of a model in a single file, which does not hold them: Stable Diffusion 1.x and 2.x.

A file in a diffusers folder, as exports write it, has the configs of that folder's JSON files. For any other file the
names and shapes of its tensors tell which of the two it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamloom.base.documents import DocumentError, parse_json, read_text
from dreamloom.base.errors import UserError
from dreamloom.train.model.other_models import describe_file
from dreamloom.train.model.prediction import read_prediction
from dreamloom.train.model.safetensors_header import read_tensor_shapes

SINGLE_FILE_SUFFIXES = (".safetensors", ".ckpt")
"""Extensions of models in a single file."""
CROSS_ATTENTION_KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
"""A tensor of every Stable Diffusion model, [320, width of the text encoder's hidden states]."""
_LABELS = "model.diffusion_model.label_emb.0.0.weight"
"""A tensor of UNets that take more than a caption: Stable Diffusion XL's, upscalers', unCLIP's."""
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
_TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}
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
            **_TEXT,
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
            **_TEXT,
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


def diffusers_folder_of(file: Path) -> Path | None:
    """Returns the diffusers folder in which a file lies; None: it lies in none."""
    return file.parent if (file.parent / "unet" / "config.json").is_file() else None


def read_component_config(file: Path, part: str) -> dict[str, Any]:
    """Reads the config of a component of the model in a file; empty where only the opened file can tell.

    Args:
        file: a .safetensors or .ckpt.
        part: unet, vae, text_encoder or scheduler.

    Raises:
        UserError: the file is not a Stable Diffusion 1.x or 2.x model.
    """
    if folder := diffusers_folder_of(file):
        config = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        return read_json_object(config) if config.is_file() else {}
    return infer_component_config(file, read_tensor_shapes(file), part) if file.suffix == ".safetensors" else {}


def infer_component_config(file: Path, tensors: Mapping[str, tuple[int, ...]], part: str) -> dict[str, Any]:
    """Infers the config of a component of a file outside a diffusers folder.

    Args:
        file: named in the error.
        tensors: name → shape of the file's tensors.
        part: unet, vae, text_encoder or scheduler.

    Raises:
        UserError: the file is not a Stable Diffusion 1.x or 2.x model.
    """
    width = _second(tensors.get(CROSS_ATTENTION_KEY, ()))
    channels = _second(tensors.get("model.diffusion_model.input_blocks.0.0.weight", ()))
    if width not in CONFIGS or channels != 4 or _LABELS in tensors:
        raise UserError(f"{file} {describe_file(tensors)}.")
    config = CONFIGS[width][part]
    return {**config, **read_prediction(file, tensors)} if part == "scheduler" else config


def read_json_object(file: Path) -> dict[str, Any]:
    """Reads a small JSON file of a model's folder.

    Raises:
        UserError: it is broken, huge or no object.
    """
    try:
        content = parse_json(read_text(file)[0])
        if not isinstance(content, dict):
            raise DocumentError("it is no object")
    except (OSError, DocumentError) as error:
        raise UserError(f"{file} can't be read ({error}); copy the model again.") from error
    return content


def _second(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) > 1 else 0
