"""Gives a training folder another ratio of ground truth than its multiplies have, without touching a file."""

from dataclasses import replace
from fractions import Fraction

from dreamloom.base.errors import UserError
from dreamloom.train.data.dataset import Dataset, Sample


def with_ratio(dataset: Dataset, ground_truth: set[int], ratio: float | None) -> Dataset:
    """Returns a dataset whose ground truth is shown in this ratio to the other images, exactly.

    The multiplies still divide ground truth among its folders, and the other images among theirs.

    Args:
        dataset: a training folder.
        ground_truth: places of the folders of ground truth.
        ratio: images of ground truth shown for each other image; 0 leaves ground truth out, None all as it is.

    Raises:
        UserError: there is no ground truth to show, or nothing beside it.
    """
    if ratio is None:
        return dataset
    shown = {True: Fraction(0), False: Fraction(0)}
    for sample in dataset.samples:
        shown[sample.folder_index in ground_truth] += sample.settings.multiply
    if not all(shown.values()):
        raise UserError(
            "ground_truth_ratio needs images of ground truth and others; see ground_truth and multiply.txt."
        )
    factor = Fraction(str(ratio)) * shown[False] / shown[True]

    def multiplied(sample: Sample) -> Sample:
        if sample.folder_index not in ground_truth:
            return sample
        settings = replace(sample.settings, multiply=sample.settings.multiply * factor)
        return replace(sample, image=replace(sample.image, settings=settings))

    samples = tuple(sample for sample in map(multiplied, dataset.samples) if sample.settings.multiply)
    broken = tuple((place, multiplied(sample)) for place, sample in dataset.broken)  # which stay in their decks
    folders = tuple(
        replace(folder, multiply=folder.multiply * factor) if place in ground_truth else folder
        for place, folder in enumerate(dataset.folders)
    )
    return replace(dataset, folders=folders, samples=samples, broken=broken)
