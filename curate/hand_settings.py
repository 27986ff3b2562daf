"""Reads how an image is shown from the YAML beside it, as decisions."""

import math
from collections.abc import Mapping
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.curate.decide import check_value
from dreamloom.scrape.collection.decisions import MIDDLE, What

Says = tuple[tuple[What, str | None], ...]

_KEYS = {"multiply", "loss_scale", "flip_p", "focus"}


def find_settings(settings: Mapping[str, Any], row: Mapping[str, Any]) -> Says | None:
    """Returns the decisions that say what a YAML's settings say and the manifest does not.

    Args:
        settings: keys and values of the YAML, as text.
        row: the image's row of the manifest. Of a held-out one, only what the YAML sets counts.

    Returns:
        None: it sets something that decisions can't.
    """
    was = {What.MULTIPLY: row["rating"] or 1.0, What.LOSS_SCALE: _number(row["loss_scale"], 1.0)}
    unsaid = was if _is_held_out(row) else {What.MULTIPLY: 1.0, What.LOSS_SCALE: 1.0}
    folder_multiply = 1.0 if _is_held_out(row) else row["multiply"] / (row["rating"] or 1)
    try:
        multiply = _number(settings.get("multiply"), unsaid[What.MULTIPLY] * folder_multiply) / folder_multiply
        now = {What.MULTIPLY: multiply, What.LOSS_SCALE: _number(settings.get("loss_scale"), unsaid[What.LOSS_SCALE])}
        flip_p = float(settings.get("flip_p", 1))
    except (TypeError, ValueError):
        return None
    if settings.keys() - _KEYS or ("flip_p" in settings and flip_p != 0):
        return None
    says = [(what, f"{now[what]:.10g}") for what in was if not math.isclose(now[what], was[what], rel_tol=1e-9)]
    flip_was = row["flip"] or "yes"
    flip = "no" if "flip_p" in settings else flip_was if _is_held_out(row) else "yes"
    says += [(What.FLIP, flip)] if flip != flip_was else []
    focus_was, focus = row["focus"] or MIDDLE, str(settings.get("focus", MIDDLE))
    says += [(What.FOCUS, focus)] if focus != focus_was else []
    try:
        return tuple((what, check_value(what, value)) for what, value in says)
    except UserError:
        return None


def _is_held_out(row: Mapping[str, Any]) -> bool:
    return row["multiply"] is None


def _number(value: Any, default: float) -> float:
    return default if value is None else float(value)
