"""How often each image is shown, so that training and ground truth stand in the ratio that was asked for. Exact.

An epoch draws, of each folder, floor(images × multiply) of them. The user says how many images of ground truth go
with one of training (ratio) and how these are shared among its sources; solved for is each source's multiply.
"""

import hashlib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import floor

from dreamloom.base.errors import UserError

DIGITS = 12
"""Decimals of a multiply in multiply.txt: exact up to 10¹² images."""


def solve(
    training: Mapping[str, tuple[int, float]], ground_truth: Mapping[str, tuple[int, float]], ratio: float
) -> dict[str, Fraction]:
    """The multiply of each source, such that an epoch draws round(ratio × training draws) images of ground truth.

    Args:
        training: source → (images, multiply as the user set it).
        ground_truth: source → (images, share relative to the others'). A source without images has no share;
            none at all is fine, then training stands alone.
        ratio: ground-truth draws for each training draw.

    Returns:
        source → multiply, exact; `decimal` writes it down. One above 1 repeats images within an epoch.

    Raises:
        UserError: an epoch would draw no training image, or ground truth is meant and has no image.
    """
    multiplies = {name: exact(multiply) for name, (_, multiply) in training.items()}
    draws = sum(floor(count * multiplies[name]) for name, (count, _) in training.items())
    if draws == 0:
        raise UserError(
            "An epoch would show no training image; give a training source that has images, and a multiply that "
            "leaves some."
        )
    if not ground_truth:
        return multiplies
    there = {name: (count, exact(share)) for name, (count, share) in ground_truth.items() if count > 0}
    if not any(share for _, share in there.values()):
        raise UserError(
            f"No image of ground truth is left to balance with ({', '.join(ground_truth)}); look at what was dropped "
            "and why, or give another source."
        )
    wanted = floor(exact(ratio) * draws + Fraction(1, 2))
    parts = apportion(wanted, {name: share for name, (_, share) in there.items()})
    multiplies |= dict.fromkeys(ground_truth, Fraction(0))
    return multiplies | {name: Fraction(parts[name], count) for name, (count, _) in there.items()}


def apportion(total: int, shares: Mapping[str, Fraction]) -> dict[str, int]:
    """Splits `total` by shares into whole numbers that add up to it: largest remainder (Hamilton), ties in order."""
    whole = sum(shares.values(), start=Fraction(0))
    quotas = {name: total * share / whole for name, share in shares.items()}
    parts = {name: floor(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: parts[name] - quotas[name])
    for name in by_remainder[: total - sum(parts.values())]:
        parts[name] += 1
    return parts


def exact(value: float) -> Fraction:
    """The number that a user who wrote 0.1 meant: a tenth, not the binary fraction nearest to it; to DIGITS."""
    return round(Fraction(str(value)), DIGITS)


def decimal(multiply: Fraction) -> str:
    """The multiply as multiply.txt has it, rounded up at DIGITS, so that floor(images × decimal) is still exact."""
    scaled = -floor(-multiply * 10**DIGITS)
    return f"{scaled // 10**DIGITS}.{scaled % 10**DIGITS:0{DIGITS}d}".rstrip("0").rstrip(".")


def held_out_counts(pictures: Mapping[str, int], share: float, most: int) -> dict[str, int]:
    """How many of each source's images are held out: the share rounded, at least one of two, none of one.

    Args:
        most: of all sources together; where the shares come to more, each gives in proportion.
    """
    counts = dict.fromkeys(pictures, 0)
    for name, count in pictures.items():
        if share and count >= 2:
            counts[name] = min(count - 1, max(1, floor(exact(share) * count + Fraction(1, 2))))
    if sum(counts.values()) > most:
        return apportion(most, {name: Fraction(count) for name, count in counts.items()})
    return counts


def held_out(keys: Iterable[str], count: int, seed: int) -> set[str]:
    """The `count` keys that come first by a hash of seed and key: images that come or go change few of them."""

    def place(key: str) -> bytes:
        return hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest()

    return set(sorted(keys, key=place)[:count])
