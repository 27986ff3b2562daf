"""What the images of a project show, and which of it stays out of rehearsal."""

from collections import Counter
from collections.abc import Collection, Sequence

from dreamloom.caption.nouns import find_all_nouns, followed, mentions, shared_nouns
from dreamloom.curate.drawing import draw_order

FREQUENT = 20
"""Fewest images of a role that show a concept that is followed: a quarter of them can be held out for an interval."""
PLENTY = 1000
"""Fewest images of ground truth of which some stay out of rehearsal: with less, none can be spared."""


def follow(
    captions: Sequence[str], labels: Sequence[Sequence[str] | None], listed: Sequence[str]
) -> list[frozenset[str]]:
    """Returns, for each image of a role, the concepts that it shows, of those that are followed.

    Followed are the user's list, and the most frequent of the datasets' labels and the captions' nouns
    (dreamloom.caption.nouns) that at least FREQUENT images and at most half of them show.

    Args:
        captions: of the images.
        labels: what each shows, as its dataset says; none, or None: it says nothing.
        listed: the user's list.
    """
    if not listed and not any(labels):
        return shared_nouns(captions, FREQUENT)
    nouns = find_all_nouns(captions)
    shown = [own | {label.lower() for label in says} if says else own for own, says in zip(nouns, labels, strict=True)]
    concepts = followed(shown, FREQUENT)
    if not listed:
        return concepts
    return [
        concepts | {name.lower() for name in listed if name.lower() in all_shown or mentions(name, caption)}
        for concepts, all_shown, caption in zip(concepts, shown, captions, strict=True)
    ]


def choose_unrehearsed(
    concepts: Sequence[frozenset[str]], share: float, needed: Collection[str], seed: int
) -> frozenset[str]:
    """Chooses concepts of ground truth that no image is trained on shall show, by hash of seed and name.

    Args:
        concepts: what each image of ground truth shows.
        share: the largest share of these images that may stay out. Of fewer than PLENTY images, none do.
        needed: concepts that are rehearsed in any case.
        seed: selects others.
    """
    left = int(share * len(concepts)) if len(concepts) >= PLENTY else 0
    images, counts = Counter(concepts), Counter[str]()  # of many images, few show different concepts
    for names, count in images.items():
        counts.update(dict.fromkeys(names, count))
    chosen: set[str] = set()
    for name in sorted(counts.keys() - set(needed), key=lambda name: draw_order(seed, name)):
        if counts[name] < FREQUENT:
            continue
        added = sum(count for names, count in images.items() if name in names and not names & chosen)
        if 0 < added <= left:
            chosen.add(name)
            left -= added
    return frozenset(chosen)
