"""A loaded CLIP (open_clip), and its embeddings of images and texts."""

import os
import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.models.clip_config import HUB, LOCAL, ClipConfig, Precision, clip_models, open_clip_name
from dreamloom.base.models.device import prepare_device
from dreamloom.base.models.hub import check_on_hub

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """A CLIP model on its device."""

    model: Any
    prepare: Callable[[Image.Image], "Tensor"]
    """RGB image → float32 [3, side, side], preprocessed as in the model's training."""
    tokenize: Callable[[Sequence[str]], "Tensor"]
    side: int
    """Pixels of the model's square input."""
    width: int
    """Length of an embedding."""
    device: str
    precision: Precision

    def embed_images(self, prepared: Sequence["Tensor"]) -> NDArray[np.float32]:
        """Computes L2-normalized embeddings [n, d] of n prepared images, as one batch."""
        import torch

        pixels = torch.stack(list(prepared)).to(self.device, torch.bfloat16 if self.precision == "bf16" else None)
        return self._normalize(self.model.encode_image, pixels)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Computes L2-normalized embeddings [n, d] of n texts, as one batch; cuts texts at the model's context."""
        return self._normalize(self.model.encode_text, self.tokenize(list(texts)).to(self.device))

    def _normalize(self, encode: Callable[["Tensor"], "Tensor"], batch: "Tensor") -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            # in float32 also where the model computes in bfloat16: rounding would leave lengths of 1 ± 0.004
            embeddings = torch.nn.functional.normalize(encode(batch).float(), dim=-1)
        return np.asarray(embeddings.cpu().numpy(), dtype=np.float32)


_loading = threading.Lock()


def load_clip(config: ClipConfig, device: str) -> Clip:
    """Loads a model, or returns the one loaded last if its files are unchanged. Safe to call from several threads.

    Raises:
        UserError: it can't be loaded.
    """
    with _loading:
        return _load(config.model, config.pretrained, config.precision, device, tuple(clip_models(config).values()))


def unload_clip() -> None:
    """Releases the model that `load_clip` keeps, to free its memory."""
    with _loading:
        _load.cache_clear()


@lru_cache(maxsize=1)
def _load(model: str, pretrained: str, precision: Precision, device: str, _content: tuple[str, ...]) -> Clip:
    torch_device = prepare_device(device)
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg
    from safetensors import SafetensorError

    unreadable = (SafetensorError, pickle.UnpicklingError)
    name = open_clip_name(model)
    is_named = not name.startswith((LOCAL, HUB))
    file = Path(pretrained).expanduser()
    known = get_pretrained_cfg(name, pretrained) if is_named and not file.is_file() else {}
    on_hub = name.removeprefix(HUB) if name.startswith(HUB) else os.path.dirname(known.get("hf_hub", ""))
    check_on_hub(on_hub)  # open_clip would ask ten times, and tell of each
    # open_clip gives OpenAI's models under their plain names GELU, but they were trained with QuickGELU: 0.6 off in
    # aesthetic
    quick_gelu = is_named and bool(get_pretrained_cfg(name, pretrained).get("quick_gelu"))
    try:
        clip, _, prepare = open_clip.create_model_and_transforms(
            name,
            pretrained=(str(file) if file.is_file() else pretrained) if is_named else None,
            precision=precision,
            device=torch_device,
            force_quick_gelu=quick_gelu,
            require_pretrained=True,
        )
        tokenize = open_clip.get_tokenizer(name)
        width = int(open_clip.get_model_config(name)["embed_dim"])
    except AssertionError as error:  # open_clip's, of a weight that has another shape
        raise UserError(
            f"The weights of the CLIP model {model} are of another model ({error}); name its own."
        ) from None
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, *unreadable) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"The CLIP model {model} can't be loaded ({line}); name its folder or its file.") from None
    clip.eval()
    size = clip.visual.image_size
    side = max(size) if isinstance(size, tuple) else int(size)
    return Clip(clip, prepare, tokenize, side, width, torch_device, precision)
