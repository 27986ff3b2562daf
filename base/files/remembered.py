"""Remembers small results that take long to compute, in the user's cache: what was counted once is not counted again.

    <cache>/results/<recipe>.json

A result is known by its recipe, a hash of all that it depends on, so none is ever wrong. The folder may be deleted at
any time. Where it can't be read or written, results are computed again.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dreamloom.base.files.atomic import commit_text
from dreamloom.base.files.cache_folder import cache_folder


def remembered(recipe: str, compute: Callable[[], Any]) -> Any:
    """Returns a result of JSON types: the one that is remembered, or else the one that `compute` returns now.

    Args:
        recipe: a hash of all that the result depends on (dreamloom.base.stage.recipe).
        compute: computes it.
    """
    file = _file(recipe)
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    result = compute()
    with contextlib.suppress(OSError):
        commit_text(file, json.dumps(result))
    return result


def recalled(recipe: str) -> Any:
    """Returns the result that is remembered under a recipe; None: there is none."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(_file(recipe).read_text(encoding="utf-8"))
    return None


def _file(recipe: str) -> Path:
    return cache_folder() / "results" / f"{recipe}.json"
