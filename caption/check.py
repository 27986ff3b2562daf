"""Checks that the models of a caption config exist, without importing torch."""

import json
import re
from pathlib import Path

from dreamloom.base.clip_config import check_clip
from dreamloom.base.errors import UserError
from dreamloom.caption.config import CaptionConfig

_KINDS = ("blip", "blip-2")


def check(config: CaptionConfig) -> None:
    """Checks, without importing torch, that the models exist, or may be on the hub.

    Raises:
        UserError: one can't be used.
    """
    _check_blip(config.model)
    if config.needs_clip:
        check_clip(config.clip)


def _check_blip(model: str) -> None:
    folder = Path(model).expanduser()
    if not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("."):
        return
    mend = "name a folder that transformers saved a BLIP in, or an id such as Salesforce/blip-image-captioning-base."
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError):
        raise UserError(f"The captioning model {model} has no config.json of a model; {mend}") from None
    if kind not in _KINDS:
        raise UserError(f"The captioning model {model} is of the kind {kind}, not {' or '.join(_KINDS)}; {mend}")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise UserError(f"The captioning model {model} has no weights (model.safetensors); {mend}")
