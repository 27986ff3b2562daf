"""New folders that are made of a folder of the user's: apart from it, marked with what they are made of, resumable."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import TEMPORARY, commit_json

_MARK = ".dreamloom.json"
"""The file that says what a folder was made from."""


def check_new_folder(output: Path, folder: Path) -> None:
    """Checks that a folder may be made of another, or that one was begun.

    Raises:
        UserError: one lies in the other, or `output` holds something else.
    """
    new, old = output.resolve(), folder.resolve()
    if new.is_relative_to(old) or old.is_relative_to(new):
        raise UserError(f"{output} and {folder} lie in each other; name an output that lies elsewhere.")
    if output.exists() and not (output / _MARK).is_file() and not _is_empty(output):
        raise UserError(f"{output} exists, and was not made from {folder}; name a folder that doesn't exist yet.")


def claim_folder(output: Path, content: Mapping[str, Any], made_from: str) -> None:
    """Makes the new folder, or checks that the same work began it.

    Args:
        output: the folder.
        content: what it is made of and how, as JSON types.
        made_from: what that is, for the error's sentence: "images, captions or formats".

    Raises:
        UserError: other work did.
    """
    mark = output / _MARK
    if not mark.is_file():
        commit_json(mark, content)
        return
    try:
        is_same = json.loads(mark.read_bytes()) == content
    except ValueError:  # it is damaged
        is_same = False
    if not is_same:
        raise UserError(f"{output} was made from other {made_from}; name another folder.")


def _is_empty(path: Path) -> bool:
    """Whether it is a folder with nothing in it but what a killed run left."""
    return path.is_dir() and all(name.startswith(TEMPORARY) for name in os.listdir(path))
