"""Which images of a training folder take part, and in which bucket; which do not, and why."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.pixels import MAX_PIXELS, ImageError, ImageHeader, read_header
from dreamloom.base.progress import Progress, silent
from dreamloom.base.threads import map_ordered
from dreamloom.train.data.buckets import (
    Size,
    assign_bucket,
    assign_bucket_without_upscale,
    generate_buckets,
    upscale_factor,
)
from dreamloom.train.data.folder import read_training_folder
from dreamloom.train.data.image import ByteRange, ImageFolder, ImageSettings, TrainingImage

MAX_UPSCALE = 4.0
"""An image whose sides would have to grow more than this to fill its bucket is too small to learn from."""


@dataclass(frozen=True)
class Sample:
    """An image that takes part."""

    image: TrainingImage
    folder_index: int
    """Which of the data set's folders holds it."""
    size: Size
    """Upright, in pixels."""
    bucket: Size
    file_size: int
    """Of the file."""

    @property
    def name(self) -> str:
        """Its path inside the training folder."""
        return self.image.name

    @property
    def caption(self) -> str:
        """As it stands there; what is shown is dreamloom.train.data.captions's to say."""
        return self.image.caption

    @property
    def settings(self) -> ImageSettings:
        """How it is shown."""
        return self.image.settings


@dataclass(frozen=True)
class Problem:
    """What does not take part. `reason` is a word: too_small, too_many_pixels, broken_shard, or one of base.pixels."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """A training folder, examined."""

    folders: tuple[ImageFolder, ...]
    samples: tuple[Sample, ...]
    """In order of folder and name."""
    problems: tuple[Problem, ...]

    def without(self, problems: Sequence[Problem]) -> "Dataset":
        """The data set less the images that turned out to be broken when they were decoded.

        Raises:
            UserError: none is left.
        """
        bad = {problem.name for problem in problems}
        left = tuple(sample for sample in self.samples if sample.name not in bad)
        return _not_empty(replace(self, samples=left, problems=(*self.problems, *problems)))

    def digest(self) -> str:
        """Names what would be trained on: the files (by name and length), their captions and settings."""
        lines = [folder.name for folder in self.folders]
        lines += [
            f"{s.name}\0{s.file_size}\0{s.caption}\0{tuple(vars(s.settings).values())}\0{s.image.tag_weights}"
            for s in self.samples
        ]
        return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def read_dataset(
    path: Path,
    resolution: int,
    bucket_reso_steps: int,
    num_workers: int,
    upscale: bool = True,
    progress: Progress = silent,
) -> Dataset:
    """Reads a training folder and the headers of its images; no pixel is decoded.

    Images whose multiply is 0 are left out. An image that can't be read becomes a Problem.

    Args:
        upscale: enlarge small images; else they get the buckets of a lower resolution.

    Raises:
        UserError: see read_training_folder; or no image of the folder can take part.
    """
    folders = tuple(read_training_folder(path))
    problems = [Problem(*broken) for folder in folders for broken in folder.broken]
    found = [(n, picture) for n, folder in enumerate(folders) for picture in folder.images if picture.settings.multiply]
    headers = map_ordered(_header, (picture.source for _, picture in found), num_workers, 16 * num_workers)
    samples: list[Sample] = []
    for (place, picture), header in zip(found, headers, strict=True):
        progress(len(samples) + len(problems), len(found), "reading headers")
        bucket = header if isinstance(header, str) else _bucket(header, resolution, bucket_reso_steps, upscale)
        if isinstance(header, str) or isinstance(bucket, str):
            problems.append(Problem(picture.name, str(bucket)))
            continue
        size = (header.width, header.height)
        samples.append(Sample(picture, place, size, bucket, picture.source.size()))
    return _not_empty(Dataset(folders, tuple(samples), tuple(problems)))


def summarize_problems(problems: Iterable[Problem], limit: int = 3) -> str:
    """The first few problems in a line."""
    listed = [f"{problem.name} ({problem.reason})" for problem in problems]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


def _header(stored: ByteRange) -> ImageHeader | str:
    try:
        return read_header(stored.path if stored.length is None else stored.read())
    except ImageError as error:
        return error.reason


def _bucket(header: ImageHeader, resolution: int, bucket_reso_steps: int, upscale: bool) -> Size | str:
    """The bucket of an image, or why it has none."""
    size = (header.width, header.height)
    if header.width * header.height > MAX_PIXELS:
        return "too_many_pixels"
    bucket = (
        assign_bucket(size, generate_buckets(resolution, bucket_reso_steps))
        if upscale
        else assign_bucket_without_upscale(size, resolution, bucket_reso_steps)
    )
    return "too_small" if bucket is None or upscale_factor(size, bucket) > MAX_UPSCALE else bucket


def _not_empty(dataset: Dataset) -> Dataset:
    if not dataset.samples:
        raise UserError(
            f"No image of the training folder can be used: {summarize_problems(dataset.problems)}; replace them."
        )
    return dataset
