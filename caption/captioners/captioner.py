"""What the caption stage expects of a captioning model, and of the family of models that it belongs to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from dreamloom.caption.config import CaptionConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GeneratedCaption:
    """A caption that a model generated for an image."""

    tokens: list[int]
    """Without the prompt and the end token."""
    text: str
    score: float
    """Mean log-probability per token, including the end token."""


class Captioner(Protocol):
    """A loaded captioning model."""

    @property
    def side(self) -> int:
        """Pixels of the model's square input."""

    def prepare(self, image: Image.Image) -> "Tensor":
        """Turns an RGB image into the model's input; called in decoding threads."""

    def generate(self, images: "Sequence[Tensor]", keys: Sequence[str]) -> list[list[GeneratedCaption]]:
        """Generates `num_candidates` captions for each prepared image, as one batch.

        Args:
            images: What `prepare` returned.
            keys: The images' keys, which seed sampling, so that captions don't depend on the batch.
        """


@dataclass(frozen=True)
class CaptionerFamily:
    """Captioning models that the same code runs."""

    model_types: tuple[str, ...]
    """`model_type` in the config.json of its models."""
    load: Callable[[CaptionConfig], Captioner]
    """Loads a model, and keeps it for later calls. Safe to call from several threads."""
    unload: Callable[[], None]
    """Releases the model that `load` keeps."""
