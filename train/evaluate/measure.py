"""Computes learned and forgotten from the losses of two models: overall, by source and by concept.

`learned` is by how much the loss on held-out training images fell against the base model. `forgotten` is by how much
the loss on held-out ground truth rose: on images of sources that are trained on, which are rehearsed, and apart from
them on those of witnesses, of which nothing is ever trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dreamloom.base import html
from dreamloom.base.tables.held_out import HeldOutImage, HeldOutImages
from dreamloom.train.evaluate.statistics import MIN_UNITS, ratio_change, shrink, simultaneous_intervals

Losses = dict[str, float]
"""Name of a held-out image → its mean loss over the timesteps."""

MEASURES = {
    "learned": "learned",
    "forgotten": "forgotten",
    "forgotten_unrehearsed": "forgotten, not rehearsed",
}
"""Field of Evaluation → the name that people see."""

SIGNS = {"training": -1, "ground_truth": 1, "witness": 1}
"""Kind of held-out images → the sign that makes the change of their loss what is reported: learned, or forgotten."""


def percent(change: float, error: float | None) -> str:
    """Returns a change and its error in percent, "12.3 ± 0.8 %"; without an error, it says why and what would do."""
    if error is None:
        return f"{100 * change:.1f} % (unsure: {MIN_UNITS} held-out images would give an interval)"
    return f"{100 * change:.1f} ± {100 * error:.1f} %"


@dataclass(frozen=True)
class Measure:
    """Change of the mean loss from the base model to the trained one."""

    change: float
    """learned: 1 − now/base. forgotten: now/base − 1."""
    error: float | None
    """Standard error of `change` over the images; None for fewer than MIN_UNITS images."""
    base: float
    """Mean loss of the base model."""
    now: float
    """Mean loss of the trained model."""
    images: int
    """Number of images."""

    def __str__(self) -> str:
        """Returns a text such as "12.3 ± 0.8 %"; see `percent`."""
        return percent(self.change, self.error)


@dataclass(frozen=True)
class GroupMeasure:
    """Change of the mean loss on the held-out images of a source or of a concept."""

    kind: str
    """training (learned), ground_truth (forgotten, rehearsed) or witness (forgotten, not rehearsed)."""
    grouping: str
    """source or concept."""
    name: str
    images: int
    change: float
    """As in Measure: learned, or forgotten."""
    low: float
    """The interval of `change`; all intervals of learned hold at once with 95 %, and so do all of forgotten."""
    high: float
    shrunk: float
    """`change`, moved towards the mean of all images the more, the less is known of it."""

    @property
    def sure(self) -> bool:
        """Whether the interval leaves no doubt that the loss got better, or worse."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """Returns a text such as "heart 12.3 % (5.1 to 19.5 %)"."""
        return f"{self.name} {100 * self.change:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f} %)"


@dataclass(frozen=True)
class Evaluation:
    """What a model learned and forgot."""

    learned: Measure | None
    """None if no training images are held out."""
    forgotten: Measure | None
    """Of what is rehearsed; None if no ground truth is held out."""
    base: dict[str, Losses]
    """Kind → losses of the base model."""
    now: dict[str, Losses]
    """Kind → losses of the trained model."""
    problems: tuple[str, ...] = ()
    """Held-out images that could not be evaluated, each with the reason."""
    forgotten_unrehearsed: Measure | None = None
    """Of what is not rehearsed; None if there is no witness."""
    groups: tuple[GroupMeasure, ...] = ()
    """Sources and concepts with at least five held-out images."""
    sets: Mapping[str, Measure] = field(default_factory=dict)
    """Change of the loss on each further set of held-out images, by name: now/base − 1."""

    @property
    def worst(self) -> GroupMeasure | None:
        """The source or concept that is surely forgotten most; None if none surely is."""
        sure = [group for group in self.groups if group.kind != "training" and group.low > 0]
        return max(sure, key=lambda group: (group.shrunk, group.name), default=None)

    @property
    def verdict(self) -> str:
        """A sentence about what was forgotten worst, which the mean does not show; empty if nothing measures it."""
        followed = [group for group in self.groups if group.kind != "training"]
        if self.worst is not None:
            rehearsed = "rehearsed" if self.worst.kind == "ground_truth" else "not rehearsed"
            return f"surely forgotten most: {self.worst}, {self.worst.images} images, {rehearsed}"
        if followed:
            return f"nothing is surely forgotten, of {len(followed)} sources and concepts"
        if self.forgotten is None and self.forgotten_unrehearsed is None:
            return ""
        return f"what was forgotten worst is not known: no source or concept has {MIN_UNITS} held-out images"

    def measures(self) -> dict[str, Measure]:
        """Returns what was measured over all images, by the name that people see."""
        known = {label: value for name, label in MEASURES.items() if (value := getattr(self, name)) is not None}
        return known | {set_label(name): value for name, value in self.sets.items()}

    def to_dict(self) -> dict[str, Any]:
        """Returns the evaluation as JSON types."""
        return {**asdict(self), "verdict": self.verdict}

    def _repr_html_(self) -> str:
        rows = [
            {
                "measure": name,
                "of the base model's loss": str(measure),
                "base model": measure.base,
                "now": measure.now,
                "images": measure.images,
            }
            for name, measure in self.measures().items()
        ]
        if not rows:
            return "<p>Nothing is held out, so nothing was measured.</p>"
        return f"<p>{html.text(self.verdict)}</p>{html.table(rows)}"


def compare_losses(
    base: Mapping[str, Losses], now: Mapping[str, Losses], images: HeldOutImages, problems: Sequence[str] = ()
) -> Evaluation:
    """Compares the losses of two models, by kind.

    Args:
        base: those of the base model.
        now: those of the trained one.
        images: what is known of the images; see `dreamloom.train.evaluate.concepts.describe`.
        problems: images that have no losses, each with the reason.
    """
    measures = {
        kind: measure(base[kind], now[kind], sign, images, kind) for kind, sign in SIGNS.items() if kind in base
    }
    families = [[kind for kind, other in SIGNS.items() if other == sign and measures.get(kind)] for sign in (-1, 1)]
    return Evaluation(
        measures.get("training"),
        measures.get("ground_truth"),
        {kind: dict(losses) for kind, losses in base.items()},
        {kind: dict(losses) for kind, losses in now.items()},
        tuple(problems),
        measures.get("witness"),
        tuple(group for family in families for group in _measure_groups(family, base, now, images)),
        {
            kind: found
            for kind in base
            if kind not in SIGNS and (found := measure(base[kind], now[kind], 1, images, kind))
        },
    )


def set_label(name: str) -> str:
    """Returns the name that people see of the measure on a further set of held-out images."""
    return f"change of the loss on {name}"


def measure(
    base: Losses, now: Losses, sign: int, images: HeldOutImages | None = None, kind: str = ""
) -> Measure | None:
    """Computes sign · (mean now / mean base − 1) and its standard error; None without images.

    Images that look the same count as one.
    """
    if not base:
        return None
    units = _units(base, now, images or {}, kind)
    before, after = (np.array([unit.losses[at] for unit in units]) for at in (0, 1))
    change, error = ratio_change(before, after)
    count = len(base)
    return Measure(sign * change + 0.0, error, sum(base.values()) / count, sum(now.values()) / count, count)  # never −0


@dataclass
class _Unit:
    """A held-out image, or several that look the same."""

    kind: str
    losses: list[float]
    """Sums of the losses of the base model, and of the trained one."""
    groups: set[tuple[str, str]]
    """Grouping and name of what it belongs to."""
    images: int = 0


def _units(base: Losses, now: Losses, images: HeldOutImages, kind: str) -> list[_Unit]:
    units: dict[str, _Unit] = {}
    for name in sorted(base):
        known = images.get(f"{kind}/{name}", HeldOutImage())
        unit = units.setdefault(f"copies {known.copies}" if known.copies else name, _Unit(kind, [0.0, 0.0], set()))
        unit.losses[0] += base[name]
        unit.losses[1] += now[name]
        unit.images += 1
        source, _, _ = name.rpartition("/")
        unit.groups |= {("source", source)} if source else set()
        unit.groups |= {("concept", concept) for concept in known.concepts}
    return list(units.values())


def _measure_groups(
    kinds: Sequence[str], base: Mapping[str, Losses], now: Mapping[str, Losses], images: HeldOutImages
) -> list[GroupMeasure]:
    """Measures the sources and concepts of a family of kinds, whose intervals hold all at once."""
    units = [unit for kind in kinds for unit in _units(base[kind], now[kind], images, kind)]
    names = sorted({(unit.kind, *group) for unit in units for group in unit.groups})
    rows = [[unit.kind == kind and (grouping, name) in unit.groups for unit in units] for kind, grouping, name in names]
    chosen = [number for number, row in enumerate(rows) if sum(row) >= MIN_UNITS]
    if not chosen:
        return []
    members = np.array([rows[number] for number in chosen], dtype=float)
    before, after = (np.array([unit.losses[at] for unit in units]) for at in (0, 1))
    strata = np.array([kinds.index(unit.kind) for unit in units])
    found = simultaneous_intervals(before, after, members, strata)
    shrunk = shrink(found.change, found.error, ratio_change(before, after)[0])
    sign, counts = SIGNS[kinds[0]], members @ np.array([unit.images for unit in units])
    measures = []
    for at, number in enumerate(chosen):
        low, high = sorted(sign * float(values[at]) + 0.0 for values in (found.low, found.high))
        change, moved = (sign * float(values[at]) + 0.0 for values in (found.change, shrunk))
        measures.append(GroupMeasure(*names[number], int(counts[at]), change, low, high, moved))
    return measures
