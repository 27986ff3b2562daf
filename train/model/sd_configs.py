"""What a model in one file does not say itself: how its parts are built, for Stable Diffusion 1.x and 2.x.

A file that lies in a diffusers folder, as exports have it, is built as that folder's small JSON files say. Any other is
built by its own tensors' names and shapes: they tell which of the two it is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError

SINGLE_FILE_SUFFIXES = (".safetensors", ".ckpt")
"""Of models in one file."""
CROSS_ATTENTION_KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
"""A tensor of every Stable Diffusion model, [320, width of the text encoder's answers]."""
_ONE, _TWO = 768, 1024

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
_KNOWN: dict[int, dict[str, dict[str, Any]]] = {
    _ONE: {
        "unet": {**_UNET, "in_channels": 4, "cross_attention_dim": _ONE, "attention_head_dim": 8},
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
    _TWO: {
        "unet": {
            **_UNET,
            "in_channels": 4,
            "cross_attention_dim": _TWO,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        "vae": _VAE,
        "text_encoder": {
            **_TEXT,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,  # of the file's 24: it was trained on what the last but one says
            "num_attention_heads": 16,
            "hidden_act": "gelu",
            "projection_dim": 512,
            "pad_token_id": 0,
        },
        "scheduler": {**_SCHEDULER, "prediction_type": None},
    },
}
"""Width of the text encoder's answers → part → its config as diffusers and transformers write it."""


def diffusers_folder_of(file: Path) -> Path | None:
    """The diffusers folder that a file lies in, where it does."""
    return file.parent if (file.parent / "unet" / "config.json").is_file() else None


def read_component_config(file: Path, part: str) -> dict[str, Any]:
    """How a part of the model in a file is built; empty where that is not known before the file is opened.

    Raises:
        UserError: it is no Stable Diffusion 1.x or 2.x model.
    """
    if folder := diffusers_folder_of(file):
        found = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        return dict(json.loads(found.read_text(encoding="utf-8"))) if found.is_file() else {}
    return infer_component_config(file, read_tensor_shapes(file), part) if file.suffix == ".safetensors" else {}


def infer_component_config(file: Path, tensors: Mapping[str, tuple[int, ...]], part: str) -> dict[str, Any]:
    """The same for a file that lies alone, by the shapes of its tensors.

    Raises:
        UserError: it is no Stable Diffusion 1.x or 2.x model.
    """
    width = tensors.get(CROSS_ATTENTION_KEY, (0, 0))[1]
    channels = tensors.get("model.diffusion_model.input_blocks.0.0.weight", (0, 0))[1]
    if width not in _KNOWN or channels != 4:
        raise UserError(
            f"{file} is no Stable Diffusion 1.x or 2.x model for images from text; name one, or put it into a "
            "diffusers folder that says how it is built."
        )
    return _KNOWN[width][part]


def read_tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a safetensors file: name → shape.

    Raises:
        UserError: it is none.
    """
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > 100 * 2**20:  # as safetensors itself allows
                raise ValueError("its header is too long")
            header = json.loads(stream.read(size))
        return {name: tuple(about["shape"]) for name, about in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no safetensors file ({error}); copy it again.") from error
