"""The statistics of paired losses: the change of a mean, and of many groups of images at once. Pure functions."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIN_UNITS = 5
"""Fewest images of a group that has an interval: below it, its error is hardly known."""
LEVEL = 0.05
"""Chance that any interval of a family misses, half of it on each side."""
REPLICATES = 2000
"""Bootstrap samples: 50 lie beyond each of the quantiles that are taken."""
_CHUNK = 250
"""Replicates that are drawn at once, which bounds the memory."""


def ratio_change(base: Floats, now: Floats) -> tuple[float, float | None]:
    """Computes mean now / mean base − 1, and its standard error, None for fewer than MIN_UNITS pairs.

    The error follows from linearizing the ratio of two means (Cochran 1977, "Sampling techniques", section 2.11). A
    pair may be the sums over a cluster of images (section 9A.2 there).
    """
    ratio = math.fsum(now) / math.fsum(base)
    if len(base) < MIN_UNITS:
        return ratio - 1, None
    squares = math.fsum((now - ratio * base) ** 2)
    return ratio - 1, math.sqrt(squares * len(base) / (len(base) - 1)) / math.fsum(base)


@dataclass(frozen=True)
class Intervals:
    """Changes of groups of images, with intervals that hold all at once."""

    change: Floats
    error: Floats
    """The larger of the group's own standard error and the one that the spread of all images gives."""
    low: Floats
    high: Floats


def simultaneous_intervals(base: Floats, now: Floats, members: Floats, strata: Integers, seed: int = 0) -> Intervals:
    """Computes the change of each group, with intervals of which all cover their true change in 95 % of cases.

    The groups' t statistics are recomputed on bootstrap samples of a model that changed no group: each image gets the
    relative residual of an image of its stratum, drawn at random. The quantiles of their maximum and of their minimum
    over the groups give the intervals (Westfall and Young 1993, "Resampling-based multiple testing", section 2.6;
    bootstrap-t: Efron and Tibshirani 1993, chapter 12). So groups may share images, and residuals may be skewed.

    Args:
        base: losses of the base model [n].
        now: losses of the trained model [n].
        members: 1 where an image is in a group, else 0 [groups, n]; each group has at least two.
        strata: a number of each image's kind [n], whose residuals are drawn from images of that kind.
        seed: of the bootstrap.
    """
    relative = _divide(now, base)
    residuals = relative - _means(relative, strata)
    change, error = _changes(base, now - base, residuals, members)
    rng = np.random.default_rng(seed)
    greatest, least = [], []
    for start in range(0, REPLICATES, _CHUNK):
        drawn = _resample(residuals, strata, min(_CHUNK, REPLICATES - start), rng)
        statistics = _divide(*_changes(base, drawn * base, drawn, members))
        greatest.append(statistics.max(axis=1))
        least.append(statistics.min(axis=1))
    above = float(np.quantile(np.concatenate(greatest), 1 - LEVEL / 2))
    below = float(np.quantile(np.concatenate(least), LEVEL / 2))
    return Intervals(change, error, change - above * error, change - below * error)


def _changes(base: Floats, added: Floats, residuals: Floats, members: Floats) -> tuple[Floats, Floats]:
    """Returns the relative change of each group's mean loss, and its error [..., groups].

    Args:
        base: losses of the base model [n].
        added: what the trained model's losses have more [..., n].
        residuals: relative, of all images [..., n], whose spread gives the least error of a group.
        members: which images are in a group [groups, n].
    """
    counts, sums, squares = members.sum(axis=1), _sum(base, members), _sum(base**2, members)
    change = _sum(added, members) / sums
    own = _sum(added**2, members) - 2 * change * _sum(added * base, members) + change**2 * squares
    common = residuals.var(axis=-1)[..., None] * squares
    return change, np.sqrt(np.maximum(own * counts / (counts - 1), common)) / sums


def _sum(values: Floats, members: Floats) -> Floats:
    """Sums values [..., n] over each group; in an order that no library of linear algebra changes."""
    total: Floats = np.einsum("...n,gn->...g", values, members)
    return total


def _means(values: Floats, strata: Integers) -> Floats:
    means: Floats = (np.bincount(strata, values) / np.maximum(1, np.bincount(strata)))[strata]
    return means


def _resample(residuals: Floats, strata: Integers, count: int, rng: "np.random.Generator") -> Floats:
    """Draws for each image a residual of its stratum, `count` times [count, n]."""
    drawn = np.empty((count, len(residuals)))
    for stratum in np.unique(strata):
        places = np.flatnonzero(strata == stratum)
        drawn[:, places] = residuals[places[rng.integers(0, len(places), (count, len(places)))]]
    return drawn


def _divide(values: Floats, divisors: Floats) -> Floats:
    """Divides; 0 / 0 is 0: where nothing varies, nothing changed."""
    return np.divide(values, divisors, out=np.zeros_like(values), where=divisors != 0)


def shrink(changes: Floats, errors: Floats, mean: float) -> Floats:
    """Moves each group's change towards the mean of all images, the more the less is known of it (empirical Bayes).

    mean + τ² / (τ² + error²) · (change − mean), with τ² the variance of the changes that their errors don't explain:
    the sample variance of the changes minus the mean of error², or 0 (Efron and Morris 1975, "Data analysis using
    Stein's estimator and its generalizations"; τ²: Hedges and Olkin 1985, "Statistical methods for meta-analysis",
    section 9.3).
    """
    if len(changes) < 2:
        return changes
    between = max(0.0, float(np.var(changes, ddof=1) - np.mean(errors**2)))
    spread = between + errors**2
    weights = np.divide(between, spread, out=np.ones_like(errors), where=spread > 0)
    return mean + weights * (changes - mean)
