"""What every stage has: a config that is checked, a summary that adds up, a recipe that says what is stale."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class StageConfig(BaseModel):
    """Base of all stage configs: immutable, and unknown keys are errors.

    One model is the stage's section in project.yaml, its command-line flags and its form in the dashboard, so every
    field has a description, bounds and a literal default (a default factory shows as empty in Prefect's form).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


@dataclass
class Summary:
    """What a stage did. Summaries of parts add up to the summary of the stage."""

    rows: int = 0
    """Rows that came in."""
    kept: int = 0
    """Rows that went on."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason → rows; rows = kept + sum(dropped)."""
    marked: dict[str, int] = field(default_factory=dict)
    """Mark → rows that went on, but that somebody may want to look at."""
    seconds: float = 0.0
    """Wall time of the work, summed over parts."""
    bytes_written: int = 0
    """Bytes of pictures written or linked."""
    parts_done: int = 0
    """Parts made now."""
    parts_before: int = 0
    """Parts that were there already, made by the same recipe."""

    def __add__(self, other: Self) -> "Summary":
        return Summary(
            self.rows + other.rows,
            self.kept + other.kept,
            _added(self.dropped, other.dropped),
            _added(self.marked, other.marked),
            self.seconds + other.seconds,
            self.bytes_written + other.bytes_written,
            self.parts_done + other.parts_done,
            self.parts_before + other.parts_before,
        )

    def to_json(self) -> str:
        """Itself as JSON, for a part's metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Summary":
        """The inverse of `to_json`."""
        return cls(**json.loads(text))


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def recipe(
    stage: str,
    version: int,
    config: BaseModel | Mapping[str, Any],
    upstream: Iterable[str] = (),
    models: Mapping[str, str] | None = None,
    leave_out: Iterable[str] = (),
) -> str:
    """Names how a result is made: the same recipe means the same result, so what carries it need not be made again.

    Args:
        stage: the stage's name.
        version: raised by hand when the stage's code starts to give other results.
        config: the stage's config.
        upstream: stamps of the parts it is made from, in a fixed order.
        models: fingerprints of the models used, by role.
        leave_out: config fields that change how fast the result is made, but not the result.

    Returns:
        32 hex digits.
    """
    values = config.model_dump(mode="json") if isinstance(config, BaseModel) else dict(config)
    for name in leave_out:
        values.pop(name)
    parts = {
        "stage": stage,
        "version": version,
        "config": values,
        "upstream": list(upstream),
        "models": dict(models or {}),
    }
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
