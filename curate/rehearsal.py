"""Warns of ground truth that is too small, or too narrow, for what is asked of it. Two plain rules.

**Too small**: an epoch shows an image of a source of ground truth more often than a training image. Then it is learned
by heart, as a training image is, instead of standing for the world.

**Too narrow**: more than half of the ground truth that is shown has one and the same caption. Then one prompt is
rehearsed, and others may be forgotten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil


@dataclass(frozen=True)
class Shown:
    """What an epoch shows of a source."""

    name: str
    is_training: bool
    images: int
    per_epoch: Fraction
    """Images that an epoch shows on average, each as often as it is shown."""
    captions: Mapping[str, int]
    """Caption → images; empty: not known yet."""


def warnings(sources: Sequence[Shown]) -> list[str]:
    """Returns a sentence for each source that is too small, and one if the ground truth is too narrow."""
    return [*_too_small(sources), *_too_narrow([source for source in sources if not source.is_training])]


def _too_small(sources: Sequence[Shown]) -> list[str]:
    training = [source for source in sources if source.is_training]
    images = sum(source.images for source in training)
    if not images:
        return []
    repeats = sum((source.per_epoch for source in training), Fraction(0)) / images
    enough = {source.name: ceil(round(source.per_epoch / repeats, 3)) for source in sources}  # multiply.txt rounds up
    return [
        f"{source.name} has too few images ({source.images:,}) for {float(source.per_epoch):,.6g} draws per epoch: "
        f"each is shown {float(source.per_epoch / source.images):.3g} times, a training image "
        f"{float(repeats):.3g} times. {enough[source.name]:,} images are enough; or lower its share, or "
        "the ratio."
        for source in sources
        if not source.is_training and 0 < source.images < enough[source.name]
    ]


def _too_narrow(ground_truth: Sequence[Shown]) -> list[str]:
    images = sum(source.images for source in ground_truth)
    total, shown = Fraction(0), dict[str, Fraction]()
    for source in ground_truth:
        total += source.per_epoch * sum(source.captions.values()) / source.images
        often = (caption for caption, count in source.captions.items() if 2 * count > source.images)
        shown |= dict.fromkeys(often, Fraction(0))  # what all sources show in more than half, one of them does
    for source in ground_truth:
        for caption in shown:
            shown[caption] += source.per_epoch * source.captions.get(caption, 0) / source.images
    caption, most = max(shown.items(), key=lambda item: (item[1], item[0]), default=("", Fraction(0)))
    if images < 2 or 2 * most <= total:
        return []
    return [
        f"{float(most / total):.0%} of the ground truth shown has the caption {caption[:60]!r}, so hardly anything "
        f"else is rehearsed. {ceil(2 * most - total):,} more draws per epoch of other ground truth are enough; "
        "or give its images captions of their own (keep_kinds without template)."
    ]
