"""Decides the ratio of ground truth of each stretch of a run, so that its limits hold with as little as may be.

The law looks at the strain of each evaluation: how much of a limit is used up, at most of all (limits.strain). A limit
is *near* above NEAR, and *surely held* if the upper ends of the intervals of the means are within it, too.

- Near, and the strain has not fallen to FALLS of the one before: the ratio is doubled.
- Surely held at two evaluations since the ratio changed: it is halved, unless the half was too little before. No more
  in the last third of the run: what is tried there has no time to be taken back.
- A ratio during which the strain rose until a limit was near is too little, for the rest of the run.
- It begins with START, and stays between LEAST_RATIO and MOST_RATIO.

It is a function of the evaluations so far, so a run that goes on decides the same.
"""

from collections.abc import Sequence
from fractions import Fraction

from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.limits import Point, strain
from dreamloom.train.settings.limits import LEAST_RATIO, MOST_RATIO

START = Fraction(1)
NEAR, FALLS = 0.9, 0.75
TRIED, LAST = 2, 2 / 3
"""Evaluations before a ratio is lowered again, and the share of the run after which it is not."""


def decide_ratios(points: Sequence[Point], config: TrainConfig) -> tuple[Fraction, ...]:
    """Returns the ratio of each stretch: the first, and one after each evaluation but that of the base model."""
    ratios, too_little, before, held = [START], Fraction(0), 0.0, 0
    for point in points[1:]:
        now, ratio = strain(point, config), ratios[-1]
        held = held + 1 if strain(point, config, surely=True) <= 1 else 0
        if now > NEAR and now >= before:
            too_little = max(too_little, ratio)
        if now > NEAR and now > FALLS * before:
            ratio = min(2 * ratio, MOST_RATIO)
        elif held >= TRIED and ratio / 2 > too_little and point["done"] < LAST:
            ratio = max(ratio / 2, LEAST_RATIO)
        held = held if ratio == ratios[-1] else 0
        ratios.append(ratio)
        before = now
    return tuple(ratios)
