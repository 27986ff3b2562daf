"""Which CLIP a stage uses: its config, and checks and fingerprints that do without torch."""

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.models.weights import check_weights
from dreamloom.base.stage import BY_CONTENT, Group, PathKind, StageConfig

Precision = Literal["fp32", "bf16"]

LOCAL, HUB = "local-dir:", "hf-hub:"
"""How open_clip marks a model that is a folder, or a repository of the Hugging Face hub."""
_CONFIG = "open_clip_config.json"

_MODEL = Group("Model")


class ClipConfig(StageConfig):
    """Which CLIP computes embeddings."""

    model: Annotated[str, PathKind.MODEL, BY_CONTENT, _MODEL] = Field(
        "ViT-L-14-quickgelu",
        description="CLIP model: an open_clip model name, hf-hub:ID, or a folder with open_clip_config.json.",
    )
    pretrained: Annotated[str, PathKind.MODEL, BY_CONTENT, _MODEL] = Field(
        "openai",
        description="Weights of a model given by name: an open_clip tag, or a file. Others bring their own.",
    )
    precision: Annotated[Precision, _MODEL] = Field(
        "fp32",
        description="Arithmetic of the model. bf16 is about 3 times faster on processors that have it, and changes "
        "scores slightly.",
    )


def check_clip(config: ClipConfig) -> None:
    """Checks, without importing torch, that the model and its weights exist.

    Raises:
        UserError: they don't.
    """
    name = open_clip_name(config.model)
    if name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL))
        if not (folder / _CONFIG).is_file():
            raise UserError(
                f"{folder} is not an open_clip model (it has no {_CONFIG}); name a model's folder or a model."
            )
        check_weights([*folder.glob("open_clip*.safetensors")] or folder.glob("open_clip*"))
        return
    if name.startswith(HUB):
        return
    if name not in _named_models():
        raise UserError(
            f"{config.model} is neither a folder nor a model that open_clip knows; name one such as ViT-L-14-quickgelu."
        )
    pretrained, file = config.pretrained, Path(config.pretrained).expanduser()
    if file.is_file():
        check_weights([file])
    elif not re.fullmatch(r"[\w-]+", pretrained):
        raise UserError(f"The CLIP weights {pretrained} are not there; name a file, or a tag such as openai.")


def clip_models(config: ClipConfig) -> dict[str, str]:
    """Returns fingerprints for recipes: a model counts by its content, not by its path."""
    model = open_clip_name(config.model).removeprefix(LOCAL)
    return {"clip": fingerprint(model), "weights": fingerprint(config.pretrained)}


def clip_name(model: str, pretrained: str) -> str:
    """Returns a model's name for people: its folder or hub ID, else its name and weights."""
    return model if re.search("[/:]", model) else f"{model} {pretrained}"


def open_clip_name(model: str) -> str:
    """Returns what open_clip calls a model given as a name, a hub ID (`hf-hub:…`) or a folder."""
    path = Path(model.removeprefix(LOCAL)).expanduser()
    return f"{LOCAL}{path}" if model.startswith(LOCAL) or path.is_dir() else model


@lru_cache(maxsize=1)
def _named_models() -> dict[str, Path]:
    """open_clip's model names and their configs, found without importing it (it imports torch)."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise UserError("open_clip is not installed; install dreamloom with its dependencies.")
    return {path.stem: path for path in (Path(spec.origin).parent / "model_configs").glob("*.json")}
