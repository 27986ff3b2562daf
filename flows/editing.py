"""What rules would make of the captions of a folder, as a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from base.progress import Progress
from caption.convert import read_rows
from caption.edit import EditConfig, edit
from caption.editing import Edit
from caption.formats.rows import Row
from caption.formats.target import Log


def edits_of_folder(folder: Path, source: str, rules: EditConfig, progress: Progress) -> list[Edit]:
    """What rules would make of the captions of a folder in the format `source`."""
    found: list[Edit] = []

    def change(row: Row, place: str) -> str:
        found.append(Edit(row.name, row.caption or "", edit(row.caption or "", rules, place)))
        return found[-1].after

    read_rows(folder, source, Log(), progress, change)
    return found


def rows_of(edits: Sequence[Edit], most: int) -> list[dict[str, Any]]:
    """Some captions that change, for a table; spread over all of them."""
    changed = [one for one in edits if one.after != one.before]
    step = max(1, len(changed) // most)
    return [{"picture": one.picture, "before": one.before, "after": one.after} for one in changed[::step][:most]]
