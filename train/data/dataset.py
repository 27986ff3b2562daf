"""The images of a training folder that take part, with their buckets; and those that do not, with a reason."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.file_index import ContentHashes
from dreamloom.base.files.remote import address_of
from dreamloom.base.files.remote_files import SHARD_CACHE_GB
from dreamloom.base.images.buckets import Size, find_bucket
from dreamloom.base.images.headers import read_headers
from dreamloom.base.images.pixels import MAX_PIXELS, ImageHeader
from dreamloom.base.progress import Progress, silent
from dreamloom.base.tables.held_out import HeldOutImages
from dreamloom.base.tables.streamed_set import find_streamed_set
from dreamloom.base.text import is_utf8, name_some, without_surrogates
from dreamloom.train.config import TrainConfig
from dreamloom.train.config_fields import MaskKind
from dreamloom.train.data.caption_notes import note_captions
from dreamloom.train.data.folder import read_training_folder
from dreamloom.train.data.image import ImageFolder, ImageSettings, TrainingImage
from dreamloom.train.data.kohya_repeats import multiply_by_repeats, note_repeats
from dreamloom.train.data.mask_files import Mask, find_masks
from dreamloom.train.data.notes import Notes
from dreamloom.train.data.shards import fetch_images


@dataclass(frozen=True, slots=True)
class Sample:
    """An image that takes part, with its bucket."""

    image: TrainingImage
    folder_index: int
    """The place of its folder in the dataset's folders."""
    size: Size
    """Of the upright image."""
    bucket: Size
    mask: Mask | None = None
    """What its loss is weighed by; None: all places count alike."""

    @property
    def name(self) -> str:
        """The image's path inside the training folder."""
        return self.image.name

    @property
    def caption(self) -> str:
        """The first caption as written; `dreamloom.train.data.captions` makes the one that is shown."""
        return self.image.caption

    @property
    def settings(self) -> ImageSettings:
        """How the image is shown."""
        return self.image.settings


@dataclass(frozen=True)
class Problem:
    """An image or shard that does not take part."""

    name: str
    """Its path inside the training folder."""
    reason: str
    """One word: too_small, too_many_pixels, name_not_utf8, caption_not_utf8, broken_shard, broken_mask,
    mask_of_another_shape, empty_mask, other_split, a fault of `dreamloom.base.tables.tables`, or one of
    `dreamloom.base.images.pixels.Reason`."""


Placed = tuple[int, TrainingImage]
"""An image and the place of its folder in the dataset's folders."""


@dataclass(frozen=True)
class Dataset:
    """A training folder with the headers of its images read."""

    folders: tuple[ImageFolder, ...]
    samples: tuple[Sample, ...]
    """In order of folder and name."""
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    """What is odd and stops nothing, in sentences."""
    held_out: HeldOutImages | None = None
    """Of held-out images: what balance knows of them, by kind and name; None: what their captions say. No part of the
    digest, as it changes no loss; runs that depend on it have it in their recipe."""
    broken: tuple[tuple[int, Sample], ...] = ()
    """Samples that can't be decoded, each with its place among all (see `dealt`)."""
    contents: ContentHashes = field(default_factory=ContentHashes, compare=False, repr=False)
    """Of the images' files: looked up once for all that is made of this dataset."""

    def without(self, problems: Sequence[Problem]) -> "Dataset":
        """Leaves out the images that turned out to be broken when they were decoded.

        Raises:
            UserError: no image is left.
        """
        names = {problem.name for problem in problems}
        if not names:
            return self
        dealt = enumerate(self.dealt())
        broken = tuple((number, sample) for number, (place, sample) in dealt if place is None or sample.name in names)
        samples = tuple(sample for sample in self.samples if sample.name not in names)
        return _not_empty(replace(self, samples=samples, broken=broken, problems=(*self.problems, *problems)))

    def dealt(self) -> Iterator[tuple[int | None, Sample]]:
        """Yields each sample with its place, and in their former places the broken ones, which have None.

        Decks are shuffled with these, so that the order of the others does not depend on which are known to be broken.
        """
        broken, rest = dict(self.broken), enumerate(self.samples)
        for number in range(len(self.samples) + len(broken)):
            yield (None, broken[number]) if number in broken else next(rest)

    def digest(self, progress: Progress = silent) -> str:
        """Hashes what would be trained on, to 32 hex digits: names, bytes, captions and settings of the images.

        Args:
            progress: called with the number of images read, which are those that the file index does not know.
        """
        self.contents.learn((sample.image.source for sample in self.samples), progress)
        digest = hashlib.blake2b("\n".join(folder.name for folder in self.folders).encode(*_ANY), digest_size=16)
        for s in self.samples:
            content, mask = self.contents.get(s.image.source), s.mask.content if s.mask else ""
            line = f"\n{s.name}\0{content}\0{_set_values(s.settings)}\0{s.image.captions}\0{mask}"
            digest.update(line.encode(*_ANY))
        return digest.hexdigest()


_ANY = ("utf-8", "surrogatepass")
"""How names are encoded that may not be UTF-8."""


def read_dataset(
    path: Path,
    resolution: int,
    bucket_reso_steps: int,
    num_workers: int,
    upscale: bool = True,
    progress: Progress = silent,
    masks: MaskKind = "none",
    kohya_repeats: bool = False,
    folder_resolutions: Mapping[str, int] | None = None,
    shard_cache_gb: float = SHARD_CACHE_GB,
) -> Dataset:
    """Reads a training folder and the headers of its images; decodes no pixel.

    Images whose multiply is 0 are left out. An image that can't be read becomes a Problem.

    Args:
        path: see `dreamloom.train.data.folder.read_training_folder`.
        resolution: the side of the square bucket, in pixels.
        bucket_reso_steps: bucket sides are multiples of this, in pixels.
        num_workers: threads that read headers.
        upscale: whether to enlarge small images; else they get the buckets of a lower resolution.
        progress: called with the number of headers read.
        masks: where the images' loss masks are looked for.
        kohya_repeats: whether the number in a folder's name (10_cat) multiplies its images.
        folder_resolutions: folder → the resolution of its images, and of those in folders below it.
        shard_cache_gb: gigabytes of shards from an address that stay in the cache.

    Raises:
        UserError: the training folder can't be read, or none of its images can take part.
    """
    notes = Notes()
    folders = tuple(read_training_folder(path, notes, progress, shard_cache_gb))
    folders = multiply_by_repeats(folders) if kohya_repeats else note_repeats(folders, notes)
    images = [(index, image) for index, folder in enumerate(folders) for image in folder.images]
    if find_streamed_set(path):
        fetch_images((image for _, image in images), shard_cache_gb, progress)
    images, problems = _legible([(index, image) for index, image in images if image.settings.multiply])
    problems += [_problem(*broken) for folder in folders for broken in folder.broken]
    headers = read_headers([image.source for _, image in images], num_workers, progress)
    sides = [_resolution(folder.name, folder_resolutions or {}, resolution) for folder in folders]
    shape_of = cache(partial(_shape, bucket_reso_steps=bucket_reso_steps, upscale=upscale))
    samples: list[Sample] = []
    sample_headers: list[ImageHeader] = []
    for (index, image), header in zip(images, headers, strict=True):
        shape = header if isinstance(header, str) else shape_of(header.width, header.height, sides[index])
        if isinstance(header, str) or isinstance(shape, str):
            problems.append(_problem(image.name, str(shape)))
            continue
        if any("\ufffd" in each.caption for each in image.captions):
            notes("captions with characters that could not be decoded (U+FFFD)", image.name)
        samples.append(Sample(image, index, *shape))
        sample_headers.append(header)
    note_captions(((each.name, text.caption) for each in samples for text in each.image.captions), notes)
    dataset = Dataset(folders, tuple(samples), tuple(problems), notes.sentences())
    return _not_empty(_with_masks(dataset, sample_headers, masks), str(address_of(path) or path))


def find_ground_truth(dataset: Dataset, config: TrainConfig) -> set[int]:
    """Returns the indices of the folders that the config calls ground truth, and of those below them.

    Raises:
        UserError: a name is that of no folder with images, or there is none and the config needs one.
    """
    asked = {
        "prior_prediction": config.prior_prediction > 0,
        "auto_ratio": config.auto_ratio,
        "ground_truth_ratio": config.ground_truth_ratio is not None,
    }
    if any(asked.values()) and not config.ground_truth:
        needing = next(name for name, is_asked in asked.items() if is_asked)
        raise UserError(f"{needing} needs ground_truth: name the folders that hold images of what is known.")
    found: set[int] = set()
    for name in config.ground_truth:
        under = {i for i, folder in enumerate(dataset.folders) if f"{folder.name}/".startswith(f"{name.rstrip('/')}/")}
        if not under:
            folders = ", ".join(folder.name for folder in dataset.folders)
            raise UserError(f"ground_truth: {name} is no folder of the training folder; it has {folders}.")
        found |= under
    return found


def summarize_problems(problems: Iterable[Problem], limit: int = 3) -> str:
    """Lists the first few problems in a line, and counts the others."""
    return name_some([f"{problem.name} ({problem.reason})" for problem in problems], limit)


def _set_values(settings: ImageSettings) -> tuple[object, ...]:
    """Returns the values of settings; without the focus where there is none, as in older releases."""
    return tuple(value for name, value in vars(settings).items() if name != "focus" or value is not None)


def _problem(name: str, reason: str) -> Problem:
    return Problem(without_surrogates(name), reason)


def _legible(images: Sequence[Placed]) -> tuple[list[Placed], list[Problem]]:
    """Returns the images whose names and captions can be encoded, and the others with a reason."""
    legible: list[Placed] = []
    problems = []
    for placed in images:
        _, image = placed
        if not is_utf8(image.name):
            problems.append(_problem(image.name, "name_not_utf8"))
        elif not all(is_utf8(each.caption) for each in image.captions):
            problems.append(_problem(image.name, "caption_not_utf8"))
        else:
            legible.append(placed)
    return legible, problems


def _shape(width: int, height: int, resolution: int, bucket_reso_steps: int, upscale: bool) -> tuple[Size, Size] | str:
    """The size and the bucket of an image, or why it has none."""
    if width * height > MAX_PIXELS:
        return "too_many_pixels"
    bucket = find_bucket((width, height), resolution, bucket_reso_steps, upscale)
    return ((width, height), bucket) if bucket else "too_small"


def _resolution(folder: str, given: Mapping[str, int], resolution: int) -> int:
    """The resolution of a folder's images: that of the nearest folder above it, or itself, that has one."""
    above = [name for name in given if f"{folder}/".startswith(f"{name}/")]
    return given[max(above, key=len)] if above else resolution


def _with_masks(dataset: Dataset, headers: Sequence[ImageHeader], kind: MaskKind) -> Dataset:
    """Gives each sample its mask; one whose mask can't be used becomes a problem."""
    if kind == "none":
        return dataset
    found = find_masks([(s.image.source, h) for s, h in zip(dataset.samples, headers, strict=True)], kind)
    pairs = list(zip(dataset.samples, found, strict=True))
    samples = tuple(
        sample if mask is None else replace(sample, mask=mask) for sample, mask in pairs if not isinstance(mask, str)
    )
    problems = [Problem(sample.name, mask) for sample, mask in pairs if isinstance(mask, str)]
    return replace(dataset, samples=samples, problems=(*dataset.problems, *problems))


def _not_empty(dataset: Dataset, folder: str = "the folder") -> Dataset:
    if not dataset.samples:
        reasons = summarize_problems(dataset.problems)
        are_small = any(problem.reason == "too_small" for problem in dataset.problems)
        lower = ", or lower the resolution to what they are large enough for" if are_small else ""
        raise UserError(f"No image of {folder} can be used: {reasons}; replace them{lower}.")
    return dataset
