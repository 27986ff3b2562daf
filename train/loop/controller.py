"""Decides the ratio of ground truth of each stretch of a run, so that its limits hold with as little as may be.

The law looks at the strain of each evaluation: how much of a limit is used up, at most of all (limits.strain). A limit
is *broken* where that is above 1, and *surely held* where the upper ends of the means' intervals are within it, too.

- Broken, or in the last third of the run not surely held: the ratio is doubled, unless the strain has fallen to FALLS
  of the one before.
- Broken so when the ratio is above START already: the learning rates are halved, too. Ground truth alone is not enough
  there: it brings back what it shows, and more of it is more steps, in which what it does not show is lost. So they
  are where a limit is broken in the first tenth of the run: what its shock makes forgotten comes back slowly.
- Surely held at two evaluations since something changed: the rates are doubled, if they were lowered, unless a limit
  broke at that rate before; else the ratio is halved, unless the half was too little before. No more in the last
  third: what is tried there has no time to be taken back.
- A ratio, and a rate, during which the strain rose until a limit was broken is too little, or too fast, for the rest of
  the run; but not the first, as the shock of the first steps passes.
- It begins with START, and stays between LEAST_RATIO and MOST_RATIO; the rates' factor between LEAST_RATE and 1.

It is a function of the evaluations so far, so a run that goes on decides the same.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.limits import Point, strain
from dreamloom.train.settings.limits import LEAST_RATE, LEAST_RATIO, MOST_RATIO

START = Fraction(1)
FALLS = 0.75
EARLY = 0.09
"""Share of the run, less than a tenth, in which rates are lowered at once, and no ratio: little is known yet."""
TRIED, LAST = 2, 2 / 3
"""Evaluations before a ratio is lowered, and the share of the run after which it is not."""


class Stretch(NamedTuple):
    """What a run decides for the steps from one evaluation to the next."""

    ratio: Fraction = START
    """Images of ground truth shown for each other one."""
    rate: Fraction = Fraction(1)
    """Factor of the learning rates."""


def decide_stretches(points: Sequence[Point], config: TrainConfig) -> tuple[Stretch, ...]:
    """Returns the stretches: the first, and one after each evaluation but that of the base model."""
    stretches, before, held = [Stretch()], 0.0, 0
    too_little, too_fast = Fraction(0), Fraction(2)
    for point in points[1:]:
        now, (ratio, rate), is_last = strain(point, config), stretches[-1], point["done"] >= LAST
        is_sure = strain(point, config, surely=True) <= 1
        held = held + 1 if is_sure and point["done"] >= EARLY else 0
        if now > 1 and now >= before and len(stretches) > 1:
            too_little, too_fast = max(too_little, ratio), min(too_fast, rate)
        if (now > 1 or (is_last and not is_sure)) and now > FALLS * before:
            if now > 1 and (ratio > START or point["done"] < EARLY):
                rate = max(rate / 2, LEAST_RATE)
            ratio = min(2 * ratio, MOST_RATIO)
        elif held >= TRIED and not is_last:
            if rate < 1 and 2 * rate < too_fast:
                rate *= 2
            elif ratio / 2 > too_little:
                ratio = max(ratio / 2, LEAST_RATIO)
        held = held if (ratio, rate) == stretches[-1] else 0
        stretches.append(Stretch(ratio, rate))
        before = now
    return tuple(stretches)
