"""Splits a training folder: a share of each folder's images is held out of training, to measure what is learned.

The side of an image depends on its bytes and the seed, not on its name or on the other images. So a renamed image stays
on its side, and so do all others when images are added; only where chance would hold out a fifth less or a quarter more
than the share of a folder are sides moved, lest folders change their ratio. Images that look the same stay together.
"""

from collections import defaultdict
from dataclasses import dataclass, replace

from dreamloom.base.images.copies import group_copies
from dreamloom.base.progress import Progress, silent
from dreamloom.train.data.dataset import Dataset
from dreamloom.train.diffusion.rng import stream_key

_LEAST, _MOST = 4 / 5, 5 / 4
"""Parts of the share that a folder holds out at least and at most."""


@dataclass(frozen=True)
class _Unit:
    """Images that look the same, and so are held out together or not at all."""

    places: list[int]
    """In the dataset."""
    draw: float
    """A number from 0 to 1 that the first image's bytes and the seed give."""


def hold_out(dataset: Dataset, share: float, seed: int, progress: Progress = silent) -> tuple[Dataset, Dataset | None]:
    """Splits a dataset, folder by folder.

    Args:
        dataset: a training folder.
        share: the share of each folder's images to hold out; a folder in which that is less than one image holds out
            none.
        seed: the run's.
        progress: called with the number of images looked at.

    Returns:
        What is trained on, with a note that tells of the split; and what is held out, None if that is nothing.
    """
    dataset.contents.learn((sample.image.source for sample in dataset.samples), progress)
    contents = [dataset.contents.get(sample.image.source) for sample in dataset.samples]
    by_folder: dict[int, list[_Unit]] = defaultdict(list)
    for places in _look_alikes(dataset, progress):
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
    """Chooses the units whose draw is below the share; more or fewer where that is far from the share of the images.

    The first unit may be of up to twice the share, so that a folder of copies holds out something.
    """
    wanted = share * sum(len(unit.places) for unit in units)
    chosen: list[_Unit] = []
    count = 0
    if wanted < 1:
        return chosen
    for unit in sorted(units, key=lambda unit: unit.draw):
        enough = unit.draw >= share and count >= _LEAST * wanted
        if not enough and count + len(unit.places) <= wanted * (_MOST if chosen else 2):
            chosen.append(unit)
            count += len(unit.places)
    return chosen


def _look_alikes(dataset: Dataset, progress: Progress) -> list[list[int]]:
    """Groups the places of images that look the same."""
    copies = group_copies([sample.image.source.decodable for sample in dataset.samples], progress)
    groups: dict[int, list[int]] = defaultdict(list)
    for place, group in enumerate(copies):
        groups[place if group is None else group].append(place)
    return list(groups.values())
