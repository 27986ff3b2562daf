"""Which pictures of a training folder take part, and in which bucket; which do not, and why."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from base.errors import UserError
from base.pixels import MAX_PIXELS, Header, PictureError, read_header
from train.buckets import Size, assign, enlargement, generate
from train.folder import Folder, read_folder

MAX_ENLARGEMENT = 4.0
"""A picture whose sides would have to grow more than this to fill its bucket is too small to learn from."""


@dataclass(frozen=True)
class Sample:
    """A picture that takes part."""

    path: Path
    name: str
    """Its path inside the training folder."""
    folder: int
    """Which of the data set's folders holds it."""
    caption: str
    size: Size
    """Upright, in pixels."""
    bucket: Size
    bytes: int
    """Of the file."""


@dataclass(frozen=True)
class Problem:
    """A picture that does not take part. `reason` is a word: too_small, too_many_pixels, or one of base.pixels."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """A training folder, examined."""

    folders: tuple[Folder, ...]
    samples: tuple[Sample, ...]
    """In order of folder and name."""
    problems: tuple[Problem, ...]

    def without(self, problems: Sequence[Problem]) -> "Dataset":
        """The data set less the pictures that turned out to be broken when they were decoded.

        Raises:
            UserError: none is left.
        """
        bad = {problem.name for problem in problems}
        left = tuple(sample for sample in self.samples if sample.name not in bad)
        return _not_empty(replace(self, samples=left, problems=(*self.problems, *problems)))

    def digest(self) -> str:
        """Names what would be trained on: the files (by name and length), their captions and multiplies."""
        lines = [f"{folder.name}\0{folder.multiply}" for folder in self.folders]
        lines += [f"{sample.name}\0{sample.bytes}\0{sample.caption}" for sample in self.samples]
        return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def read_dataset(path: Path, resolution: int, quantum: int, workers: int) -> Dataset:
    """Reads a training folder and the headers of its pictures; no pixel is decoded.

    Folders whose multiply is 0 are left out. A picture that can't be read becomes a Problem.

    Raises:
        UserError: see read_folder; or no picture of the folder can take part.
    """
    folders = tuple(folder for folder in read_folder(path) if folder.multiply)
    found = [(place, picture) for place, folder in enumerate(folders) for picture in folder.pictures]
    with ThreadPoolExecutor(workers) as threads:
        headers = list(threads.map(lambda pair: _header(pair[1].path), found))
    buckets = generate(resolution, quantum)
    samples, problems = [], []
    for (place, picture), header in zip(found, headers, strict=True):
        name = picture.path.relative_to(path).as_posix()
        reason = header if isinstance(header, str) else _unfit(header, buckets)
        if reason or isinstance(header, str):
            problems.append(Problem(name, reason))
            continue
        size = (header.width, header.height)
        length = picture.path.stat().st_size
        samples.append(Sample(picture.path, name, place, picture.caption, size, assign(size, buckets), length))
    return _not_empty(Dataset(folders, tuple(samples), tuple(problems)))


def names(problems: Iterable[Problem], limit: int = 3) -> str:
    """The first few problems in a line."""
    listed = [f"{problem.name} ({problem.reason})" for problem in problems]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


def _header(path: Path) -> Header | str:
    try:
        return read_header(path)
    except PictureError as error:
        return error.reason


def _unfit(header: Header, buckets: tuple[Size, ...]) -> str:
    size = (header.width, header.height)
    if header.width * header.height > MAX_PIXELS:
        return "too_many_pixels"
    return "too_small" if enlargement(size, assign(size, buckets)) > MAX_ENLARGEMENT else ""


def _not_empty(dataset: Dataset) -> Dataset:
    if not dataset.samples:
        raise UserError(f"No picture of the training folder can be used: {names(dataset.problems)}; replace them.")
    return dataset
