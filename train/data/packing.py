"""Packs an epoch's images into the places of batches: in few forward passes, and those of one batch_id together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from dreamloom.train.data.sampler import SampleIds
from dreamloom.train.diffusion.rng import permutation


@dataclass(frozen=True)
class Piece:
    """Images of one group that have no index yet."""

    group: int
    sample_ids: SampleIds


def count_images(pieces: Sequence[Piece]) -> int:
    """Counts the images of some pieces."""
    return sum(len(piece.sample_ids) for piece in pieces)


def fill_parts(pieces: Sequence[Piece], counts: Sequence[int]) -> list[list[Piece]]:
    """Divides pieces into parts of so many images, in as few forward passes as is simple.

    Each part takes the largest piece that fits, and only where none fits a piece of the next larger ones.
    """
    by_size: dict[int, list[Piece]] = defaultdict(list)
    for piece in pieces:
        by_size[len(piece.sample_ids)].append(piece)
    parts: list[list[Piece]] = []
    for count in counts:
        part: list[Piece] = []
        while missing := count - count_images(part):
            sizes = [size for size, left in by_size.items() if left]
            size = max((s for s in sizes if s <= missing), default=0) or min(sizes)
            piece = by_size[size].pop()
            part.append(Piece(piece.group, piece.sample_ids[:missing]))
            if size > missing:
                by_size[size - missing].append(Piece(piece.group, piece.sample_ids[missing:]))
        parts.append(part)
    return parts


def pack_batch_ids(batch_ids: Sequence[str], begin: int, per_step: int, key: int) -> list[int]:
    """Orders slots so that those of one batch_id share optimizer steps, as far as there are enough of them.

    Args:
        batch_ids: of each slot; empty: it has none.
        begin: the first place at which an optimizer step begins.
        per_step: slots per optimizer step.
        key: names the choice of the optimizer steps that are filled with one batch_id.

    Returns:
        The slots' numbers in their new order.
    """
    begins = range(begin, len(batch_ids) - per_step + 1, per_step)
    by_id: dict[str, list[int]] = defaultdict(list)
    for number, batch_id in enumerate(batch_ids):
        if batch_id:
            by_id[batch_id].append(number)
    runs = [
        numbers[start : start + per_step]
        for numbers in by_id.values()
        for start in range(0, len(numbers) - per_step + 1, per_step)
    ]
    placed: dict[int, int] = {}
    for place, run in zip(permutation(key, len(begins)), runs, strict=False):
        placed |= enumerate(run, start=begins[place])
    packed = set(placed.values())
    others = (number for number in range(len(batch_ids)) if number not in packed)
    return [placed[place] if place in placed else next(others) for place in range(len(batch_ids))]
