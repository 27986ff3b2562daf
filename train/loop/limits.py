"""Judges the evaluations of a run: whether they are within the limits, and whether the run should end."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import takewhile
from typing import Any

from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.measure import MEASURES
from dreamloom.train.evaluate.statistics import MIN_UNITS
from dreamloom.train.run.folder import best_point
from dreamloom.train.settings.limits import LEAST_RATE, MOST_RATIO

TRIES, STRETCH = 3, Fraction(1, 3)
"""What has to come no nearer to a limit before it is given up: so many evaluations in a row (or the patience), over
this share of the run, so that neither frequent evaluations nor the shock of the first steps decide."""
Z = 1.96
"""Standard errors on each side of an interval of 95 %."""

Point = Mapping[str, Any]
"""A point of evaluation.json."""


def has_limits(config: TrainConfig) -> bool:
    """Tells whether a run has a limit on what it may forget."""
    return config.limit_mean is not None or config.limit_worst is not None


def excess(point: Point, config: TrainConfig) -> float:
    """Returns by how much a point is beyond its limits, as a share of the base's loss; 0 if it is within them."""
    return max([0.0, *(value - limit for _, value, limit in _limited(point, config))])


def strain(point: Point, config: TrainConfig, surely: bool = False) -> float:
    """Returns how much of a limit a point uses up, the most of all limits: 1 is at a limit, 0 is nothing forgotten.

    Args:
        point: the evaluation.
        config: its limits.
        surely: takes the upper ends of the means' intervals of 95 %, and all sources and concepts, also those that may
            have forgotten nothing.
    """
    return max([0.0, *(value / limit for _, value, limit in _limited(point, config, surely))])


def find_end(points: Sequence[Point], config: TrainConfig, num_images: int) -> str:
    """Returns why a run should end after its newest evaluation, in a sentence; empty if it should go on.

    Args:
        points: the evaluations so far.
        config: the run's.
        num_images: that the whole run shows.
    """
    return _give_up(points, config, num_images) or _learn_no_more(points, config)


def _give_up(points: Sequence[Point], config: TrainConfig, num_images: int) -> str:
    """Says that a limit can't be held, if nothing that is left of the run may bring it nearer.

    Rates that fall make less forgotten up to the last step, so such a run goes on. So does one that may still show more
    ground truth, or lower its rates.
    """
    beyond = list(takewhile(lambda point: point.get("excess", 0) > 0, reversed(points)))  # the newest first
    if not beyond or {config.lr_scheduler, config.text_encoder_lr_scheduler} - {None, "constant"}:
        return ""
    begin = points[-1]["images_seen"] - STRETCH * num_images
    count = max(TRIES, config.patience, sum(point["images_seen"] > begin for point in beyond))
    last, before = beyond[:count], beyond[count:]
    if not before or min(p["excess"] for p in last) < min(p["excess"] for p in before):
        return ""
    if any(p.get("ratio", MOST_RATIO) < MOST_RATIO or p.get("rate", LEAST_RATE) > LEAST_RATE for p in last):
        return ""
    broken = tell_broken(points[-1], config)
    return f"the limit can't be held: {broken}, and the last {count} evaluations came no nearer to it"


def _learn_no_more(points: Sequence[Point], config: TrainConfig) -> str:
    """Says that learning has ended, if evaluations within the limits bring no better checkpoint.

    Those beyond a limit don't tell: as much may be learned where it is held again.
    """
    best = best_point(points) or 0
    worse = sum(point["images_seen"] > best and point.get("excess", 0) == 0 for point in points)
    if config.patience and worse >= config.patience:
        return f"learning has ended: the last {config.patience} evaluations brought no better checkpoint"
    return ""


def tell_limits(points: Sequence[Point], config: TrainConfig) -> str:
    """Returns which checkpoint is kept and whether it is within the limits; empty without limits or evaluations."""
    best = best_point(points)
    if best is None or not has_limits(config):
        return ""
    point = next(point for point in points if point["images_seen"] == best)
    text = f"the checkpoint after {best:,} images is the one within the limits that learned most"
    if point["excess"] > 0:
        broken = tell_broken(point, config)
        text = f"no checkpoint is within the limits; the nearest is the one after {best:,} images: {broken}"
    return "; ".join([text, *_unknown(point, config)])


def _limited(point: Point, config: TrainConfig, surely: bool = False) -> Iterator[tuple[str, float, float]]:
    """Yields what is limited: its name, its value and its limit; see `strain`."""
    if config.limit_mean is not None:
        for name, label in MEASURES.items():
            if name != "learned" and point.get(name):
                margin = Z * (point[name]["error"] or 0.0) if surely else 0.0
                yield label, point[name]["change"] + margin, config.limit_mean
    if config.limit_worst is not None:
        for group in point.get("groups", ()):
            if group["kind"] != "training" and (surely or group["low"] > 0):
                yield f"{group['grouping']} {group['name']}", group["change"], config.limit_worst


def tell_broken(point: Point, config: TrainConfig) -> str:
    """Returns which limits a point is beyond, the worst first, and by how much; empty if it is within all."""
    broken = sorted(
        (limit - value, name, value, limit)
        for name, value, limit in _limited(point, config)
        if not value <= limit  # also what is no number
    )
    return ", ".join(f"{name} {100 * value:.1f} % (limit {100 * limit:g} %)" for _, name, value, limit in broken[:3])


def _unknown(point: Point, config: TrainConfig) -> Iterator[str]:
    """Says which limits the held-out images are too few to tell."""
    for name, label in MEASURES.items():
        error = (point.get(name) or {}).get("error") or 0.0
        if config.limit_mean is not None and name != "learned" and error > config.limit_mean:
            yield f"{label} is only known to ± {100 * error:.1f} %: hold out more images"
    if config.limit_worst is not None and all(group["kind"] == "training" for group in point.get("groups", ())):
        yield f"limit_worst is not measured: no source or concept has {MIN_UNITS} held-out images"
