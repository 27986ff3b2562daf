"""Summaries as JSON, for programs: `--json` of the commands that print tables."""

import json
from dataclasses import asdict, is_dataclass
from fractions import Fraction
from typing import Annotated, Any

from cyclopts import Parameter

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
"""The switch of a command whose summary can be had as JSON."""


def print_json(content: Any) -> None:
    """Prints a summary to stdout: fractions as numbers, and what JSON has no type for, such as paths, as text."""
    print(json.dumps(content, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return float(value) if isinstance(value, Fraction) else str(value)
