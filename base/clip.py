"""An open_clip model: which one, where it comes from, and embeddings of images and texts."""

import importlib.util
import pickle
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from dreamloom.base.cpu import keep_pages
from dreamloom.base.errors import UserError
from dreamloom.base.files import fingerprint
from dreamloom.base.stage import BY_CONTENT, StageConfig

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]

_LOCAL, _HUB = "local-dir:", "hf-hub:"
_CONFIG = "open_clip_config.json"


class ClipConfig(StageConfig):
    """Which CLIP."""

    model: Annotated[str, BY_CONTENT] = Field(
        "ViT-L-14-quickgelu",
        description="CLIP model: one of open_clip's names, hf-hub:ID, or a folder with open_clip_config.json.",
    )
    weights: Annotated[str, BY_CONTENT] = Field(
        "openai", description="Weights of a named model: one of open_clip's tags, or a file; folders bring their own."
    )
    precision: Precision = Field(
        "fp32",
        description="bf16 is some 3 times faster where the processor has it; scores then change a little.",
    )


@dataclass(frozen=True)
class Clip:
    """A loaded model."""

    model: Any
    prepare: Callable[[Image.Image], "Tensor"]
    """RGB image → float32 [3, side, side], as the model was trained."""
    tokenize: Callable[[Sequence[str]], "Tensor"]
    side: int
    """Pixels of the model's square input."""
    width: int
    """Numbers of an embedding."""
    device: str
    precision: Precision

    def embed_pictures(self, prepared: Sequence["Tensor"]) -> NDArray[np.float32]:
        """L2-normalised embeddings [n, d] of n prepared images, as one batch."""
        import torch

        pixels = torch.stack(list(prepared)).to(self.device, torch.bfloat16 if self.precision == "bf16" else None)
        return self._unit(self.model.encode_image, pixels)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """L2-normalised embeddings [n, d] of n texts, as one batch; what exceeds the model's context is cut off."""
        return self._unit(self.model.encode_text, self.tokenize(list(texts)).to(self.device))

    def _unit(self, encode: Callable[["Tensor"], "Tensor"], batch: "Tensor") -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            # normalised in float32 also where the model works in bfloat16: rounding would leave lengths of 1 ± 0.004
            embeddings = torch.nn.functional.normalize(encode(batch).float(), dim=-1)
        return np.asarray(embeddings.cpu().numpy(), dtype=np.float32)


def check_clip(config: ClipConfig) -> None:
    """Sees, without importing torch, that there is such a model and such weights.

    Raises:
        UserError: there are not.
    """
    found = _find(config.model)
    if found.startswith(_LOCAL):
        folder = Path(found.removeprefix(_LOCAL))
        if not (folder / _CONFIG).is_file():
            raise UserError(f"{folder} is no open_clip model (it has no {_CONFIG}); name a model's folder or a model.")
        return
    if found.startswith(_HUB):
        return
    if found not in _named_models():
        raise UserError(
            f"{config.model} is neither a folder nor a model that open_clip knows; name one such as ViT-L-14-quickgelu."
        )
    weights = config.weights
    if not re.fullmatch(r"\w+", weights) and not Path(weights).expanduser().is_file():
        raise UserError(f"The CLIP weights {weights} are not there; name a file, or a tag such as openai.")


def clip_models(config: ClipConfig) -> dict[str, str]:
    """Fingerprints for recipes: models count by what is in them, not by where they lie."""
    return {"clip": fingerprint(_find(config.model).removeprefix(_LOCAL)), "weights": fingerprint(config.weights)}


def clip_name(model: str, weights: str) -> str:
    """What people call it: a model's own name with its weights, else its folder or id."""
    return model if re.search("[/:]", model) else f"{model} {weights}"


def _find(model: str) -> str:
    """What open_clip calls a model that is given as a name, a hub id (`hf-hub:…`), or a folder."""
    path = Path(model.removeprefix(_LOCAL)).expanduser()
    return f"{_LOCAL}{path}" if model.startswith(_LOCAL) or path.is_dir() else model


_loading = threading.Lock()


def load_clip(config: ClipConfig, device: Device) -> Clip:
    """Loads a model once and keeps it while its files are the same, also where several threads ask at once.

    Raises:
        UserError: it can't be loaded.
    """
    with _loading:
        return _load(config.model, config.weights, config.precision, device, tuple(clip_models(config).values()))


def forget_clip() -> None:
    """Lets go of the model that `load_clip` keeps, so that its memory is free for others."""
    with _loading:
        _load.cache_clear()


@lru_cache(maxsize=1)
def _load(model: str, weights: str, precision: Precision, device: Device, _content: tuple[str, ...]) -> Clip:
    if device != "cuda":
        keep_pages()  # before torch is imported
    import open_clip
    import torch
    from open_clip.pretrained import get_pretrained_cfg
    from safetensors import SafetensorError

    unreadable = (SafetensorError, pickle.UnpicklingError)
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("The device for CLIP is cuda, but torch sees no GPU; leave it at auto, or set it to cpu.")
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    name = _find(model)
    named = not name.startswith((_LOCAL, _HUB))
    # OpenAI's models under their plain names get GELU where they were trained with QuickGELU: 0.6 off in aesthetic
    quick = named and bool(get_pretrained_cfg(name, weights).get("quick_gelu"))
    file = Path(weights).expanduser()
    try:
        made, _, prepare = open_clip.create_model_and_transforms(
            name,
            pretrained=(str(file) if file.is_file() else weights) if named else None,
            precision=precision,
            device=place,
            force_quick_gelu=quick,
            require_pretrained=True,
        )
        tokenize = open_clip.get_tokenizer(name)
        width = int(open_clip.get_model_config(name)["embed_dim"])
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, *unreadable) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"The CLIP model {model} can't be loaded ({line}); name its folder or its file.") from None
    made.eval()
    size = made.visual.image_size
    side = max(size) if isinstance(size, tuple) else int(size)
    return Clip(made, prepare, tokenize, side, width, place, precision)


@lru_cache(maxsize=1)
def _named_models() -> dict[str, Path]:
    """open_clip's own models and their configs, found without importing it (it imports torch)."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise UserError("open_clip is not installed; install dreamloom with its dependencies.")
    return {path.stem: path for path in (Path(spec.origin).parent / "model_configs").glob("*.json")}
