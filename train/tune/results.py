"""What a tuning measured, and what follows from it."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dreamloom.base import html
from dreamloom.base.versions import RUN
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.measure import GroupMeasure, Measure


@dataclass(frozen=True)
class ProbeResult:
    """What a probe learned and forgot."""

    title: str
    ratio: float
    prior_prediction_weight: float | None
    """None: prior prediction was as the run's config has it."""
    learned: Measure | None
    forgotten: Measure | None
    forgotten_unrehearsed: Measure | None
    worst: GroupMeasure | None
    """The source or concept that is surely forgotten most."""
    excess: float
    """By how much it is beyond the limits, as a share of the base's loss; 0: within them."""
    broken: str
    """The limits that it breaks, in words; empty: none."""
    steps: int
    seconds: float | None
    """Time of its steps."""

    @property
    def settings(self) -> dict[str, float]:
        """The settings of a run that does the same."""
        weight = self.prior_prediction_weight
        prior = {} if weight is None else {"prior_prediction": 1.0, "prior_prediction_weight": weight}
        return {"ratio": self.ratio, **prior}

    def to_row(self) -> dict[str, Any]:
        """Returns a row of a table for people."""
        row: dict[str, Any] = {"ratio": self.ratio}
        row["prior prediction"] = self.prior_prediction_weight
        measures = {
            "learned": self.learned,
            "forgotten": self.forgotten,
            "not rehearsed": self.forgotten_unrehearsed,
            "worst that is sure": self.worst,
        }
        row |= {name: "" if value is None else str(value) for name, value in measures.items()}
        row |= {"limits": "broken" if self.excess else "held", "steps": self.steps}
        return row | {"seconds": None if self.seconds is None else round(self.seconds, 1)}


@dataclass(frozen=True)
class Tuning:
    """The probes that are done, those with the least ground truth first."""

    results: tuple[ProbeResult, ...]
    config: TrainConfig
    """Of one of the probes: its limits are those of all."""
    finished: bool
    """False: it was asked to stop, or goes on; the next call runs the rest."""

    @cached_property
    def recommended(self) -> ProbeResult | None:
        """The probe with the least ground truth of those that hold the limits; of equal ones, that learned most."""
        held = [result for result in self.results if result.excess == 0]
        return min(held, key=lambda result: (result.ratio, -_change(result.learned)), default=None)

    @property
    def recommendation(self) -> str:
        """A sentence: what holds the limits, or that nothing did and what came nearest."""
        limits = {"mean": self.config.limit_mean, "worst": self.config.limit_worst}
        named = ", ".join(f"{name} {100 * limit:g} %" for name, limit in limits.items() if limit is not None)
        if self.recommended is not None:
            return f"{self.recommended.title} is the least ground truth probed that holds the limits ({named})"
        if not self.results:
            return "no probe is done yet"
        nearest = min(self.results, key=lambda result: result.excess)
        return f"no probe holds the limits ({named}); the nearest is {nearest.title}: {nearest.broken}"

    def line(self) -> str:
        """Returns the lines for project.yaml; empty if nothing is recommended."""
        if self.recommended is None:
            return ""
        ratio, *prior = self.recommended.settings.items()
        lines = [f"balance: {{ratio: {ratio[1]:g}}}"]
        return "\n".join([*lines, f"train: {{{', '.join(f'{k}: {v:g}' for k, v in prior)}}}"] if prior else lines)

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row for each probe."""
        rows = [result.to_row() for result in self.results]
        if all(row["prior prediction"] is None for row in rows):
            for row in rows:
                del row["prior prediction"]
        return rows

    def _repr_html_(self) -> str:
        return f"<p>{html.text(self.recommendation)}</p>{html.table(self.rows())}"


def write_tuning(file: Path, tuning: Tuning) -> None:
    """Writes the results as JSON."""
    recommended = None if tuning.recommended is None else tuning.recommended.settings
    values = {"limit_mean": tuning.config.limit_mean, "limit_worst": tuning.config.limit_worst}
    told = {"recommended": recommended, "recommendation": tuning.recommendation, "finished": tuning.finished}
    RUN.write_json(file, {**told, **values, "probes": [asdict(result) for result in tuning.results]})


def _change(measure: Measure | None) -> float:
    return measure.change if measure else 0.0
