"""What all stages share: configs with metadata at their fields, summaries that add up, and recipes.

A recipe is a hash of everything that a result depends on. It decides which results are stale.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from dreamloom.base import html
from dreamloom.base.versions import known_fields

PART_ROWS = 10_000
"""Rows of a part, the unit of work and of resume, unless a config says otherwise."""


@dataclass(frozen=True)
class Group:
    """Metadata of a config field: its group on help pages."""

    title: str
    is_early: bool = False
    """Whether the group stands before the others, as most people set something of it."""


@dataclass(frozen=True)
class Recipe:
    """Metadata of a config field: the name of the recipe that hashes it. Without it, the stage's recipe does."""

    name: str


NO_RECIPE = Recipe("")
"""Marks fields that change the speed, the output on screen or how much is kept, but not the result."""
BY_CONTENT = Recipe("")
"""Marks paths and names of models, in place of which the recipe hashes the fingerprint of the model itself."""


class PathKind(Enum):
    """Metadata of a config field or a command's parameter: what its path may name. A Path without it has to exist."""

    MODEL = "a path, or the name of a model that is not on this machine"
    ADDRESS = "a path, or an address in a store"
    PATTERNS = "a list of paths, glob patterns and URLs"
    OUTPUT = "a path that need not exist"


class StageConfig(BaseModel):
    """Base of all configs: immutable, and strict about unknown keys.

    A config is the stage's section in project.yaml, its command-line flags and its form in the Prefect dashboard. So
    each field has a description, bounds and a literal default, as Prefect's form shows a default factory as empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, defer_build=True)


def changed_fields(config: StageConfig, names: Iterable[str]) -> list[str]:
    """Returns those of some fields of a config that are not at their defaults."""
    fields = type(config).model_fields
    return [name for name in names if getattr(config, name) != fields[name].default]


@dataclass
class Summary:
    """Counts of what a stage did. The summaries of its parts add up to its own."""

    rows: int = 0
    """Rows that came in."""
    kept: int = 0
    """Rows that went on."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason → rows that were dropped for it; rows = kept + sum(dropped)."""
    marked: dict[str, int] = field(default_factory=dict)
    """Mark → rows that were kept, but that somebody may want to look at."""
    seconds: float = 0.0
    """Wall time, summed over parts."""
    bytes_written: int = 0
    """Bytes of images written or linked."""
    parts_done: int = 0
    """Parts made by this call."""
    parts_before: int = 0
    """Parts that existed already, made by the same recipe."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason → images beside the source's own that are no rows (dreamloom.base.files.listing)."""
    unread: int = 0
    """Rows whose files could not be read this time; their part is made again by the next run."""

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
            _added(self.left_out, other.left_out),
            self.unread + other.unread,
        )

    def as_existing(self, parts: int = 1) -> "Summary":
        """Returns the summary as that of parts that existed before this call."""
        return replace(self, seconds=0.0, parts_done=0, parts_before=parts)

    def __str__(self) -> str:
        """Returns a line such as "1,200 rows, 1,000 kept, dropped: timeout 50, http_404 150; 75.0 s"."""
        text = f"{self.rows:,} rows, {self.kept:,} kept"
        text += f", dropped: {reasons(self.dropped)}" if self.dropped else ""
        text += f", marked: {reasons(self.marked)}" if self.marked else ""
        return f"{text}; {self.seconds:.1f} s"

    def to_row(self) -> dict[str, Any]:
        """Returns the counts as one row of a table for people."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "dropped": reasons(self.dropped),
            "marked": reasons(self.marked),
            "seconds": round(self.seconds, 1),
            "MB written": round(self.bytes_written / 1e6, 1) or None,
        }

    def _repr_html_(self) -> str:
        return html.table([self.to_row()])

    def to_json(self) -> str:
        """Returns the summary as JSON, for a part's metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Summary":
        """Reads what `to_json` wrote; keys that a newer version added are ignored."""
        return cls(**known_fields(cls, json.loads(text)))


def reasons(counts: Mapping[str, int]) -> str:
    """Returns counts by reason as text, the most frequent first: "http_404 120, timeout 7"."""
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items(), key=lambda i: (-i[1], i[0])))


def _added(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}


def recipe(
    stage: str,
    version: int,
    config: BaseModel | Mapping[str, Any],
    upstream: Iterable[str] = (),
    models: Mapping[str, str] | None = None,
) -> str:
    """Returns a hash of how a result is made: results with the same recipe are the same and need not be made again.

    Args:
        stage: the stage's name.
        version: the version of the stage's code, raised by hand when it starts to give other results.
        config: the stage's config, of which the fields of the stage's own recipe are hashed; or the values to hash.
        upstream: stamps of the parts that the result is made from, in a fixed order.
        models: fingerprints of the models used, by role.

    Returns:
        32 hex digits.
    """
    values = recipe_values(config) if isinstance(config, BaseModel) else dict(config)
    parts = {
        "stage": stage,
        "version": version,
        "config": values,
        "upstream": list(upstream),
        "models": dict(models or {}),
    }
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def recipe_values(config: BaseModel, name: str | None = None) -> dict[str, Any]:
    """Returns the values, as JSON types, of the fields of a config that belong to a recipe.

    Args:
        name: the recipe's name, as in `Recipe(name)`; None: the stage's own.
    """
    return config.model_dump(mode="json", include=recipe_fields(type(config), name))


def recipe_fields(config: type[BaseModel], name: str | None = None) -> set[str]:
    """Returns the names of the fields that belong to a recipe; see `recipe_values`."""
    return {field for field, info in config.model_fields.items() if _recipe_name(info) == name}


def _recipe_name(info: FieldInfo) -> str | None:
    return next((mark.name for mark in info.metadata if isinstance(mark, Recipe)), None)


def path_kind_of(info: FieldInfo) -> PathKind | None:
    """Returns what the path in a field may name; None where the field does not say."""
    return next((mark for mark in info.metadata if isinstance(mark, PathKind)), None)


def group_of(info: FieldInfo) -> str | None:
    """Returns the title of a field's group; None where it names none."""
    group = _group(info)
    return None if group is None else group.title


def is_early(info: FieldInfo) -> bool:
    """Whether a field's group stands before others on help pages."""
    group = _group(info)
    return group is not None and group.is_early


def _group(info: FieldInfo) -> Group | None:
    return next((mark for mark in info.metadata if isinstance(mark, Group)), None)
