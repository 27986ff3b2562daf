"""Decides the ratio of ground truth of each stretch of a run, so that its limits hold with as little as may be.

The law looks at the strain of each evaluation: how much of a limit is used up, at most of all (limits.strain). A limit
is *broken* where that is above 1, and *surely held* where the upper ends of the means' intervals are within it, too.

- Broken, or in the last third of the run not surely held: the ratio is doubled, unless the strain has fallen to FALLS
  of the one before.
- Surely held at two evaluations since the ratio changed: it is halved, unless the half was too little before. No more
  in the last third: what is tried there has no time to be taken back.
- A ratio during which the strain rose until a limit was broken is too little, for the rest of the run; but not the
  first, as the shock of the first steps passes.
- It begins with START, and stays between LEAST_RATIO and MOST_RATIO.

It is a function of the evaluations so far, so a run that goes on decides the same.
"""

from collections.abc import Sequence
from fractions import Fraction

from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.limits import Point, strain
from dreamloom.train.settings.limits import LEAST_RATIO, MOST_RATIO

START = Fraction(1)
FALLS = 0.75
TRIED, LAST = 2, 2 / 3
"""Evaluations before a ratio is lowered, and the share of the run after which it is not."""


def decide_ratios(points: Sequence[Point], config: TrainConfig) -> tuple[Fraction, ...]:
    """Returns the ratio of each stretch: the first, and one after each evaluation but that of the base model."""
    ratios, too_little, before, held = [START], Fraction(0), 0.0, 0
    for point in points[1:]:
        now, ratio, is_last = strain(point, config), ratios[-1], point["done"] >= LAST
        is_sure = strain(point, config, surely=True) <= 1
        held = held + 1 if is_sure else 0
        if now > 1 and now >= before and len(ratios) > 1:
            too_little = max(too_little, ratio)
        if (now > 1 or (is_last and not is_sure)) and now > FALLS * before:
            ratio = min(2 * ratio, MOST_RATIO)
        elif held >= TRIED and ratio / 2 > too_little and not is_last:
            ratio = max(ratio / 2, LEAST_RATIO)
        held = held if ratio == ratios[-1] else 0
        ratios.append(ratio)
        before = now
    return tuple(ratios)
