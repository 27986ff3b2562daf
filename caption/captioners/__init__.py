"""The families of captioning models. A new one is a file beside these, and a line in CAPTIONERS."""

import json
from functools import lru_cache
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.text import brief
from dreamloom.caption.captioners.blip import BLIP
from dreamloom.caption.captioners.captioner import Captioner, CaptionerFamily
from dreamloom.caption.config import CaptionConfig

CAPTIONERS: list[CaptionerFamily] = [BLIP]


def model_types() -> list[str]:
    """Returns the types of models that can be loaded, as their config.json names them."""
    return [model_type for family in CAPTIONERS for model_type in family.model_types]


def read_model_type(folder: Path) -> str | None:
    """Returns the `model_type` of a model folder's config.json; None where there is no such file, or no type in it."""
    try:
        model_type = json.loads((folder / "config.json").read_bytes())["model_type"]
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return model_type if isinstance(model_type, str) else None


def load_captioner(config: CaptionConfig) -> Captioner:
    """Loads the captioning model of a config, or returns the one loaded last if its files are unchanged.

    Raises:
        UserError: it can't be loaded, no family runs it, or there is no such device.
    """
    folder = Path(config.model).expanduser()
    model_type = read_model_type(folder) if folder.is_dir() else _hub_model_type(config.model)
    for family in CAPTIONERS:
        if model_type in family.model_types:
            return family.load(config)
    types = " or ".join(model_types())
    raise UserError(f"The captioning model {config.model} is of type {model_type}, not {types}; name one that is.")


def unload_captioners() -> None:
    """Releases the models that are kept, to free their memory."""
    for family in CAPTIONERS:
        family.unload()


@lru_cache
def _hub_model_type(model: str) -> str | None:
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(model)
    except (OSError, ValueError) as error:
        why = brief(error, 300)
        raise UserError(f"The captioning model {model} can't be loaded ({why}); name one that can.") from error
    model_type = config.get("model_type")
    return model_type if isinstance(model_type, str) else None
