"""The images of a training folder: where their bytes lie, their captions, and how each is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from dreamloom.base.files.remote import is_remote
from dreamloom.base.files.remote_files import read_range
from dreamloom.base.images.pixels import ImageError
from dreamloom.caption.parts import CaptionParts


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes of an image: a file, or a part of one."""

    name: str
    """The end of the file's path. A whole path for each of a million images would take a tenth of their memory."""
    start: int = 0
    length: int | None = None
    """In bytes; None: up to the end of the file."""
    root: str = ""
    """The beginning of the file's path, which many share."""

    def __hash__(self) -> int:
        """Returns a hash from what differs most; that of all fields takes ten times as long."""
        return hash(self.name) ^ self.start

    @property
    def file(self) -> str:
        """The path of the file, or its address (s3://…)."""
        return self.root + self.name

    @property
    def path(self) -> Path:
        """The path of the file."""
        return Path(self.file)

    def read(self) -> bytes:
        """Reads the bytes.

        Raises:
            ImageError: the file does not exist, or can't be read.
            UserError: an address can't be read.
        """
        if is_remote(self.file):
            return read_range(self.file, self.start, self.length)
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.start)
                return stream.read(-1 if self.length is None else self.length)
        except OSError as error:
            raise ImageError("missing_file", str(error)) from error

    def decodable(self) -> Path | bytes:
        """Returns what `dreamloom.base.images.pixels` decodes: the path of a whole file, or the bytes of a part of one.

        Raises:
            ImageError: as `read`.
        """
        return self.path if self.length is None else self.read()

    def size(self) -> int:
        """Returns the length in bytes; 0 where the file does not exist."""
        if self.length is not None:
            return self.length
        return self.path.stat().st_size if self.path.is_file() else 0


@dataclass(frozen=True)
class ImageSettings:
    """How an image is shown, as EveryDream's control files say it. None: as the config says."""

    multiply: Fraction = Fraction(1)
    """How often the image is shown per epoch, exact."""
    focus: tuple[float, float] | None = None
    """The point that crops keep as near to their middle as they can: x and y, in shares of the sides."""
    flip_p: float | None = None
    """The share of its showings that are mirrored."""
    cond_dropout: float | None = None
    """The share of its showings with an empty caption."""
    loss_scale: float = 1.0
    """The factor of its loss; may be negative."""
    shuffle_tags: bool | None = None
    """Whether the tags of its caption are shuffled for each showing."""
    max_caption_length: int | None = None
    """The length of captions with shuffled tags, in characters; further tags are left out."""
    batch_id: str = ""
    """Images share a batch only with images of the same batch_id."""


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """An image of a training folder."""

    name: str
    """Its path inside the training folder."""
    source: ByteRange
    captions: tuple[CaptionParts, ...]
    """At least one; one of them is chosen at each showing."""
    settings: ImageSettings = ImageSettings()

    @property
    def caption(self) -> str:
        """The first caption, without shuffling."""
        return self.captions[0].caption


@dataclass(frozen=True)
class ImageFolder:
    """One folder of images, without the folders below it."""

    name: str
    """Its path inside the training folder; "." for the training folder itself."""
    multiply: Fraction
    """How often each image is shown per epoch, where the image's own files don't say otherwise."""
    images: Sequence[TrainingImage]
    """Sorted by name."""
    broken: Sequence[tuple[str, str]] = ()
    """Names of images and shards that can't be read, each with a word for the reason."""
