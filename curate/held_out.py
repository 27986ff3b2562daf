"""Which images are held out: a share of each source, whole groups of copies, and some of every frequent concept."""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor
from typing import NamedTuple

from dreamloom.base.apportion import apportion
from dreamloom.curate.balance import exact
from dreamloom.curate.drawing import draw_order

ENOUGH = 5
"""Held-out images of a concept from which its loss has an interval (dreamloom.train.evaluate.statistics)."""
_PART = 4
"""Of the images of a concept, at most one in so many is held out for its sake."""


class Candidate(NamedTuple):
    """An image that may be held out."""

    row: int
    """Its place among all images."""
    key: str
    source: str
    concepts: frozenset[str] = frozenset()
    copies: int | None = None
    """The same for images that look the same; None: it is one of a kind."""


def count_held_out(counts: Mapping[str, int], share: float, maximum: int) -> dict[str, int]:
    """Computes how many images of each source are held out: the share, rounded; at least one of two, and none of one.

    Args:
        counts: Source → images.
        share: The share to hold out of each source.
        maximum: Of all sources together; where the shares exceed it, each gives in proportion.
    """
    held_out = dict.fromkeys(counts, 0)
    for name, count in counts.items():
        if share and count >= 2:
            held_out[name] = min(count - 1, max(1, floor(exact(share) * count + Fraction(1, 2))))
    return at_most(held_out, maximum)


def at_most(counts: Mapping[str, int], maximum: int) -> dict[str, int]:
    """Reduces counts, in proportion, to a maximum of all together."""
    if sum(counts.values()) <= maximum:
        return dict(counts)
    return dict(zip(counts, apportion(maximum, [Fraction(count) for count in counts.values()]), strict=True))


def select_held_out(
    candidates: Sequence[Candidate], counts: Mapping[str, int], seed: int, group_sizes: Mapping[int, int]
) -> set[int]:
    """Selects the images with the lowest hash of seed and key, so that added or removed images change few.

    Images that look the same are selected together or not at all, so none is held out while a copy is trained on.
    Then images are exchanged within their source until each concept has ENOUGH, or a quarter of its images.

    Args:
        candidates: the images of a role.
        counts: Source → images to select; fewer where groups of copies do not fit.
        seed: selects others.
        group_sizes: Group of copies → its images, also those that are no candidates; these keep it from being selected.

    Returns:
        The selected rows.
    """
    if not any(counts.values()):
        return set()
    ordered = sorted(candidates, key=lambda candidate: draw_order(seed, candidate.key))
    selected: dict[int, Candidate] = {}
    for source, count in counts.items():
        selected |= _select(source, count, ordered, group_sizes)
    _exchange(selected, [candidate for candidate in ordered if candidate.copies is None])
    return set(selected)


def _select(
    source: str, free: int, ordered: Sequence[Candidate], group_sizes: Mapping[int, int]
) -> dict[int, Candidate]:
    """Selects the first images of a source, a group of copies where the first of it stands."""
    of_source = [candidate for candidate in ordered if candidate.source == source]
    groups: dict[int, list[Candidate]] = {}
    for candidate in of_source:
        if candidate.copies is not None:
            groups.setdefault(candidate.copies, []).append(candidate)
    selected: dict[int, Candidate] = {}
    for candidate in of_source:
        if not free:
            break
        copies = candidate.copies
        members = [candidate] if copies is None else groups.pop(copies, [])
        if len(members) <= free and (copies is None or group_sizes[copies] == len(members)):
            selected |= {member.row: member for member in members}
            free -= len(members)
    return selected


def _exchange(selected: dict[int, Candidate], ordered: Sequence[Candidate]) -> None:
    """Exchanges images for others of their source, until each concept has enough, the rarest concept first.

    Those that come last in order go first, and none goes without which a concept would have too few.
    """
    showing: dict[str, list[Candidate]] = {}
    for candidate in ordered:
        for name in candidate.concepts:
            showing.setdefault(name, []).append(candidate)
    needed = {name: min(ENOUGH, len(images) // _PART) for name, images in showing.items()}
    counts = Counter(name for candidate in selected.values() for name in candidate.concepts)

    def find_spare(source: str) -> Candidate | None:
        for candidate in reversed(ordered_selected):
            if candidate.source == source and all(counts[name] > needed[name] for name in candidate.concepts):
                return candidate
        return None

    ordered_selected = [candidate for candidate in ordered if candidate.row in selected]
    for name in sorted(needed, key=lambda name: (len(showing[name]), name)):
        for candidate in showing[name]:
            if counts[name] >= needed[name]:
                break
            if candidate.row in selected or (spare := find_spare(candidate.source)) is None:
                continue
            del selected[spare.row]
            selected[candidate.row] = candidate
            counts.subtract(spare.concepts)
            counts.update(candidate.concepts)
            ordered_selected = [other for other in ordered_selected if other is not spare] + [candidate]
