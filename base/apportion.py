"""Divides a whole number in proportion to shares."""

from collections.abc import Sequence
from fractions import Fraction
from math import floor


def apportion(
    total: int,
    shares: Sequence[Fraction],
    at_least: Sequence[int] | None = None,
    at_most: Sequence[int] | None = None,
) -> list[int]:
    """Divides a total into whole numbers, by largest remainders (Hamilton's method); of equal remainders, the first.

    Args:
        total: with bounds, at least the sum of `at_least` and at most that of `at_most`.
        shares: relative to each other, of any sum above 0.
        at_least: the least of each; None: 0.
        at_most: the most of each; None: no bound.
    """
    whole = sum(shares, Fraction(0))
    quotas = [total * share / whole for share in shares]
    low = [0] * len(shares) if at_least is None else at_least
    high = [total] * len(shares) if at_most is None else at_most
    counts = [min(max(floor(quota), low[n]), high[n]) for n, quota in enumerate(quotas)]
    while missing := total - sum(counts):
        sign, bounds = (1, high) if missing > 0 else (-1, low)
        free = [number for number, count in enumerate(counts) if count != bounds[number]]
        counts[max(free, key=lambda number: (sign * (quotas[number] - counts[number]), -number))] += sign
    return counts
