"""Editing the captions that a collection or a folder has: what would change, and by which config a stage does it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from base.errors import UserError
from base.progress import Progress
from caption.config import CaptionConfig
from caption.convert import read_rows
from caption.edit import EditConfig, edit
from caption.formats.rows import Row
from caption.formats.target import Log
from scrape.collection import Collection, Table, open_collection


@dataclass(frozen=True)
class Edit:
    """A caption before and after."""

    picture: str
    before: str
    after: str


def edits_of_collection(collection: Collection, rules: EditConfig) -> list[Edit]:
    """What rules would make of the captions that a collection has now; earlier edits are taken back first."""
    rows = collection.read(Table.CAPTIONS, columns=["key", "caption", "unedited"]).to_pylist()
    return [Edit(row["key"], row["caption"], edit(_unedited(row), rules, collection.name)) for row in rows]


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


def edited_config(collection: Path, rules: EditConfig) -> CaptionConfig:
    """The config by which a collection's captions were made, with other rules.

    Raises:
        UserError: it is no collection with captions, or another version made them.
    """
    opened = open_collection(collection, Table.CAPTIONS)
    made = opened.config(Table.CAPTIONS, opened.parts(Table.CAPTIONS)[0])
    try:
        return CaptionConfig.model_validate(made).model_copy(update={"edit": rules})
    except ValidationError:
        raise UserError(
            f"{collection}'s captions were made by another version; run dreamloom caption on it first."
        ) from None


def _unedited(row: dict[str, Any]) -> str:
    return str(row["caption"] if row["unedited"] is None else row["unedited"])
