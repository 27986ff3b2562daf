"""Pictures of a training folder, whether they lie in files of their own or in shards, and what is said of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from dreamloom.base.pixels import ImageError


@dataclass(frozen=True)
class ByteRange:
    """Where an image's bytes lie: in a file, or in a part of one."""

    path: Path
    start: int = 0
    length: int | None = None
    """None: up to the file's end."""

    def read(self) -> bytes:
        """The bytes.

        Raises:
            ImageError: the file is not there, or can't be read.
        """
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.start)
                return stream.read(-1 if self.length is None else self.length)
        except OSError as error:
            raise ImageError("missing_file", str(error)) from error

    def size(self) -> int:
        """In bytes; 0 where the file is not there."""
        if self.length is not None:
            return self.length
        return self.path.stat().st_size if self.path.is_file() else 0


@dataclass(frozen=True)
class ImageSettings:
    """How an image is shown, as EveryDream's control files have it; None: as the config says."""

    multiply: Fraction = Fraction(1)
    """How often it is shown in an epoch, exact."""
    flip_p: float | None = None
    """The share of its showings that are mirrored."""
    cond_dropout: float | None = None
    """The share of its showings with an empty caption."""
    loss_scale: float = 1.0
    """What its loss is multiplied by."""
    shuffle_tags: bool | None = None
    """Whether the tags of its caption come in another order each time."""
    max_caption_length: int | None = None
    """Characters up to which shuffled tags are taken."""
    batch_id: str = ""
    """Pictures share a batch with those of the same one only."""


@dataclass(frozen=True)
class TrainingImage:
    """An image of a training folder."""

    name: str
    """Its path inside the training folder."""
    source: ByteRange
    caption: str
    settings: ImageSettings = ImageSettings()
    tag_weights: tuple[tuple[str, float], ...] = ()
    """Of those of the caption's tags that have one other than 1."""


@dataclass(frozen=True)
class ImageFolder:
    """One folder of images; the folders below it stand for themselves."""

    name: str
    """Its path inside the training folder, "." for the training folder itself."""
    multiply: Fraction
    """How often each image is shown in an epoch, where its own files don't say otherwise."""
    images: Sequence[TrainingImage]
    """Sorted by name."""
    broken: Sequence[tuple[str, str]] = ()
    """Names of what could not be read, with a word for the reason."""
