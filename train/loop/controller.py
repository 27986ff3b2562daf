"""Decides the ratio of ground truth of each stretch of a run, so that its limits hold with as little as may be.

The law looks at the strain of each evaluation: how much of a limit is used up, at most of all (limits.strain).

- Strain above NEAR that has not fallen to FALLS of the one before: the ratio is doubled.
- Strain below FAR: the ratio is halved, unless the half was too little before.
- A ratio during which the strain rose above NEAR is too little, for the rest of the run.
- It begins with START, and stays between LEAST_RATIO and MOST_RATIO.

It is a function of the evaluations so far, so a run that goes on decides the same.
"""

from collections.abc import Sequence
from fractions import Fraction

from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.limits import Point, strain
from dreamloom.train.settings.limits import LEAST_RATIO, MOST_RATIO

START = Fraction(1)
NEAR, FAR, FALLS = 0.75, 0.25, 0.75


def decide_ratios(points: Sequence[Point], config: TrainConfig) -> tuple[Fraction, ...]:
    """Returns the ratio of each stretch: the first, and one after each evaluation but that of the base model."""
    ratios, too_little, before = [START], Fraction(0), 0.0
    for point in points[1:]:
        now, ratio = strain(point, config), ratios[-1]
        if now > NEAR and now >= before:
            too_little = max(too_little, ratio)
        if now > NEAR and now > FALLS * before:
            ratio = min(2 * ratio, MOST_RATIO)
        elif now < FAR and ratio / 2 > too_little:
            ratio = max(ratio / 2, LEAST_RATIO)
        ratios.append(ratio)
        before = now
    return tuple(ratios)
