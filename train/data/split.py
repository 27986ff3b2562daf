"""Splits a training folder: a share of each folder's images is held out of training, to measure what is learned.

The side of an image depends on its bytes and the seed, not on its name or on the other images. So a renamed image stays
on its side, and so do all others when images are added; only where chance would hold out less than half or more than
twice the share of a folder are sides moved. Images that look the same stay together.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dreamloom.base.file_index import content_hashes
from dreamloom.base.near_duplicates import close_pairs, phash
from dreamloom.base.pixels import ImageError, decode
from dreamloom.base.progress import Progress, silent
from dreamloom.base.threads import map_ordered
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.diffusion.rng import stream_key

PHASH_BITS = 4
"""Most bits in which the hashes of images that look the same differ, as in choose."""
MIN_CORRELATION = 0.97
"""Least correlation of their thumbnails: the hash alone is blind to color."""
THUMBNAIL = 16
"""Side of the thumbnails, in pixels."""


@dataclass(frozen=True)
class _Look:
    """What an image looks like."""

    hash: int
    thumbnail: NDArray[np.float32]
    """Colors of the shrunk image, of mean 0 and length 1."""


@dataclass(frozen=True)
class _Unit:
    """Images that look the same, and so are held out together or not at all."""

    places: list[int]
    """In the dataset."""
    draw: float
    """A number from 0 to 1 that the first image's bytes and the seed give."""


def hold_out(
    dataset: Dataset, share: float, seed: int, num_workers: int, progress: Progress = silent
) -> tuple[Dataset, Dataset | None]:
    """Splits a dataset, folder by folder.

    Args:
        dataset: a training folder.
        share: the share of each folder's images to hold out; a folder in which that is less than one image holds out
            none.
        seed: the run's.
        num_workers: threads that decode images.
        progress: called with the number of images looked at.

    Returns:
        What is trained on, with a note that tells of the split; and what is held out, None if that is nothing.
    """
    contents = content_hashes([sample.image.source for sample in dataset.samples], progress)
    looks = _look_at(dataset.samples, num_workers, progress)
    by_folder: dict[int, list[_Unit]] = defaultdict(list)
    for places in _look_alikes(contents, looks):
        first = min(places, key=lambda place: (str(contents[place]), dataset.samples[place].name))
        draw = stream_key(seed, "held out", contents[first]) / 2**64
        by_folder[dataset.samples[first].folder_index].append(_Unit(places, draw))
    held = {place for units in by_folder.values() for unit in _choose(units, share) for place in unit.places}
    rest = tuple(sample for place, sample in enumerate(dataset.samples) if place not in held)
    chosen = tuple(dataset.samples[place] for place in sorted(held))
    note = f"{len(chosen):,} of {len(dataset.samples):,} images are held out to measure what is learned; see held_out."
    return (
        replace(dataset, samples=rest, notes=(*dataset.notes, note)),
        replace(dataset, samples=chosen, problems=(), notes=()) if chosen else None,
    )


def _choose(units: list[_Unit], share: float) -> list[_Unit]:
    """Chooses the units whose draw is below the share; more or fewer where that is far from the share of the images."""
    wanted = share * sum(len(unit.places) for unit in units)
    chosen: list[_Unit] = []
    count = 0
    if wanted < 1:
        return chosen
    for unit in sorted(units, key=lambda unit: unit.draw):
        enough = unit.draw >= share and count >= wanted / 2
        if not enough and count + len(unit.places) <= 2 * wanted:
            chosen.append(unit)
            count += len(unit.places)
    return chosen


def _look_at(samples: Sequence[Sample], num_workers: int, progress: Progress) -> list[_Look | None]:
    looks = []
    for look in map_ordered(_look, samples, num_workers, 4 * num_workers):
        looks.append(look)
        progress(len(looks), len(samples), "looking for images that look the same")
    return looks


def _look(sample: Sample) -> _Look | None:
    """Decodes an image; None: it can't be, which is told when its latent is made."""
    source = sample.image.source
    try:
        image = decode(source.path if source.length is None else source.read(), at_least=64)
    except ImageError:
        return None
    thumbnail = np.asarray(image.resize((THUMBNAIL, THUMBNAIL)), np.float32).ravel()
    thumbnail -= thumbnail.mean()
    return _Look(phash(image), thumbnail / max(float(np.linalg.norm(thumbnail)), 1e-6))


def _look_alikes(contents: Sequence[str | None], looks: Sequence[_Look | None]) -> list[list[int]]:
    """Groups places of images that are or look the same, directly or over others that do."""
    group = list(range(len(looks)))

    def find(place: int) -> int:
        while group[place] != place:
            place = group[place]
        return place

    for one, other in [*_same(contents), *_near(looks)]:
        low, high = sorted((find(one), find(other)))
        group[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for place in range(len(looks)):
        groups[find(place)].append(place)
    return list(groups.values())


def _same(contents: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    first: dict[str, int] = {}
    for place, content in enumerate(contents):
        if content is not None:
            yield first.setdefault(content, place), place


def _near(looks: Sequence[_Look | None]) -> Iterator[tuple[int, int]]:
    """Yields the places of two images whose hashes are close and whose colors agree."""
    by_hash: dict[int, list[int]] = defaultdict(list)
    for place, look in enumerate(looks):
        if look is not None:
            by_hash[look.hash].append(place)
    places = list(by_hash.values())
    thumbnails = [np.stack([look.thumbnail for at in each if (look := looks[at])]) for each in places]
    near = close_pairs(np.array(list(by_hash), np.int64).view(np.uint64), PHASH_BITS)
    crowded = [(at, at) for at, each in enumerate(places) if len(each) > 1]
    for left, right in [*crowded, *near]:
        for one, other in np.argwhere(thumbnails[left] @ thumbnails[right].T >= MIN_CORRELATION).tolist():
            yield places[left][one], places[right][other]
