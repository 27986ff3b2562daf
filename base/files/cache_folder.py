"""Where what may be computed again is kept, for all projects of a user."""

import os
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.remote import is_remote


def cache_folder() -> Path:
    """Returns the user's folder for what may be computed again: DREAMLOOM_CACHE, else ~/.cache/dreamloom.

    Raises:
        UserError: DREAMLOOM_CACHE is an address.
    """
    if folder := os.environ.get("DREAMLOOM_CACHE"):
        if is_remote(folder):
            raise UserError(f"DREAMLOOM_CACHE is {folder}, and a cache lies on this machine; name a folder.")
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dreamloom"
