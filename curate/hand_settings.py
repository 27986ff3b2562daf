"""Reads how an image is shown from the YAML beside it, as decisions."""

import math
from collections.abc import Mapping
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.curate.decide import check_value
from dreamloom.scrape.collection.decisions import What

Says = tuple[tuple[What, str | None], ...]


def find_settings(settings: Mapping[str, Any], row: Mapping[str, Any]) -> Says | None:
    """Returns the decisions that say what a YAML's settings say and the manifest does not.

    Args:
        settings: keys and values of the YAML, as text.
        row: the image's row of the manifest.

    Returns:
        None: it sets something that decisions can't.
    """
    try:
        multiply, loss_scale = (float(settings.get(name, default)) for name, default in _defaults(row).items())
        flip_p = float(settings.get("flip_p", 1))
    except (TypeError, ValueError):
        return None
    if settings.keys() - {"multiply", "loss_scale", "flip_p"} or ("flip_p" in settings and flip_p != 0):
        return None
    folder_multiply = row["multiply"] / (row["rating"] or 1)
    told = {
        What.MULTIPLY: (multiply / folder_multiply, row["rating"] or 1.0),
        What.LOSS_SCALE: (loss_scale, 1.0 if row["loss_scale"] is None else row["loss_scale"]),
    }
    says = [(what, f"{now:.10g}") for what, (now, was) in told.items() if not math.isclose(now, was, rel_tol=1e-9)]
    flip = "no" if "flip_p" in settings else "yes"
    says += [(What.FLIP, flip)] if flip != (row["flip"] or "yes") else []
    try:
        return tuple((what, check_value(what, value)) for what, value in says)
    except UserError:
        return None


def _defaults(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns what holds where the YAML says nothing: its folder's multiply, and the whole loss."""
    return {"multiply": row["multiply"] / (row["rating"] or 1), "loss_scale": 1.0}
