"""Where what may be computed again is kept, for all projects of a user."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns the user's folder for what may be computed again: DREAMLOOM_CACHE, else ~/.cache/dreamloom."""
    if folder := os.environ.get("DREAMLOOM_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dreamloom"
