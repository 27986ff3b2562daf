"""Checks that the models of a caption config exist."""

import re
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.models.clip_config import check_clip
from dreamloom.base.models.weights import check_weights
from dreamloom.caption.captioners import model_types, read_model_type
from dreamloom.caption.config import CaptionConfig


def check(config: CaptionConfig) -> None:
    """Checks, without importing torch, that the models exist, or may be on the hub.

    Raises:
        UserError: one can't be used.
    """
    _check_captioner(config.model)
    if config.needs_clip:
        check_clip(config.clip)


def _check_captioner(model: str) -> None:
    folder = Path(model).expanduser()
    if not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("."):
        return
    mend = "name a folder in transformers' format, or a hub ID such as Salesforce/blip-image-captioning-base."
    model_type = read_model_type(folder)
    if model_type is None:
        raise UserError(f"The captioning model {model} has no config.json of a model; {mend}")
    if model_type not in model_types():
        raise UserError(
            f"The captioning model {model} is of type {model_type}, not {' or '.join(model_types())}; {mend}"
        )
    weights = [*folder.glob("*.safetensors")] or [*folder.glob("pytorch_model*.bin")]
    if not weights:
        raise UserError(f"The captioning model {model} has no weights (model.safetensors); {mend}")
    check_weights(weights)
