"""Intervals of an audit's numbers, concept by concept; they hold all at once, as those of evaluate do."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dreamloom.train.evaluate.statistics import MIN_UNITS, simultaneous_intervals

Floats = NDArray[np.float64]
Interval = tuple[float, float]


def mean_intervals(values: Mapping[str, Floats]) -> dict[str, Interval]:
    """Returns intervals of the mean of each group of independent values; groups of fewer than five have none."""
    chosen = {name: group for name, group in values.items() if len(group) >= MIN_UNITS}
    if not chosen:
        return {}
    strata = np.repeat(np.arange(len(chosen)), [len(group) for group in chosen.values()])
    members = (strata == np.arange(len(chosen))[:, None]).astype(float)
    return dict(zip(chosen, _intervals(np.concatenate(list(chosen.values())), members, strata), strict=True))


def shared_intervals(values: Floats, groups: Mapping[str, Sequence[int]]) -> dict[str, Interval]:
    """Returns intervals of the mean of each group, where groups may share values; small groups have none.

    Args:
        values: one for each unit.
        groups: name → places of its values.
    """
    chosen = {name: places for name, places in groups.items() if len(places) >= MIN_UNITS}
    if not chosen:
        return {}
    members = np.zeros((len(chosen), len(values)))
    for row, places in zip(members, chosen.values(), strict=True):
        row[list(places)] = 1.0
    return dict(zip(chosen, _intervals(values, members, np.zeros(len(values), np.int64)), strict=True))


def _intervals(values: Floats, members: Floats, strata: NDArray[np.int64]) -> list[Interval]:
    """Of means: the change from a loss of 1 to one of 1 + value is the value."""
    found = simultaneous_intervals(np.ones(len(values)), 1 + values, members, strata)
    return [(float(low), float(high)) for low, high in zip(found.low, found.high, strict=True)]
