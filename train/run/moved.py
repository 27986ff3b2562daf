"""Finds what a run names by its path, where a workspace was moved together with what it uses."""

import os
from pathlib import Path
from typing import Any


def relocated(settings: dict[str, Any], run: Path) -> dict[str, Any]:
    """Returns a run's settings with the paths that hold now.

    A project's run lies in WORKSPACE/runs, and its training folder is WORKSPACE/dataset; other runs may lie beside
    theirs. A path is looked for where it lies now seen from there; one that is there, or that is not found, stays as
    it is.

    Args:
        settings: what config.json holds.
        run: the run's folder.
    """
    dataset = Path(settings["folder"])
    if not dataset.is_absolute() or dataset.exists():
        return settings

    def moved(value: Any) -> Any:
        if not isinstance(value, str) or not os.path.isabs(value) or os.path.exists(value):
            return value
        beside = os.path.relpath(value, dataset.parent)
        places = (os.path.normpath(top / beside) for top in (run.absolute().parent.parent, run.absolute().parent))
        return next(filter(os.path.exists, places), value)

    config = {name: moved(value) for name, value in settings["config"].items()}
    found = settings | {"folder": moved(settings["folder"]), "heldout": moved(settings["heldout"]), "config": config}
    if continued := settings.get("continued"):
        found["continued"] = continued | {"run": moved(continued["run"])}
    return found
