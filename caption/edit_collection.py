"""Editing the captions that there are: what would change, and changing those of a collection. No model is needed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.caption.config import CaptionConfig, EditConfig
from dreamloom.caption.convert import read_rows
from dreamloom.caption.edit import edit
from dreamloom.caption.formats.rows import Row
from dreamloom.caption.formats.target import Log
from dreamloom.caption.stage import recipes_by
from dreamloom.scrape.collection import Collection, Table, open_collection


@dataclass(frozen=True)
class Edit:
    """A caption before and after."""

    picture: str
    before: str
    after: str


def edits_of(collection: Collection, rules: EditConfig) -> list[Edit]:
    """What rules would make of the captions that a collection has now; earlier edits are taken back first.

    Raises:
        UserError: it has no captions.
    """
    opened = open_collection(collection.root, Table.CAPTIONS)
    rows = opened.read(Table.CAPTIONS, columns=["key", "caption", "unedited"]).to_pylist()
    return [Edit(row["key"], row["caption"], edit(_unedited(row), rules, collection.name)) for row in rows]


def edits_of_folder(folder: Path, source: str, rules: EditConfig, progress: Progress = silent) -> list[Edit]:
    """What rules would make of the captions of a folder in the format `source`.

    Raises:
        UserError: it is no folder of that format.
    """
    found: list[Edit] = []

    def change(row: Row, place: str) -> str:
        found.append(Edit(row.name, row.caption or "", edit(row.caption or "", rules, place)))
        return found[-1].after

    read_rows(folder, source, Log(), progress, change)
    return found


def edit_captions(collection: Collection, rules: EditConfig, progress: Progress = silent) -> list[EditConfig]:
    """Edits the captions that are there, by these rules in place of earlier ones.

    Parts become what the caption stage would make of them; one that is stale stays so.

    Returns:
        The earlier rules, each once.

    Raises:
        UserError: another process works on the collection, or another version made its captions.
    """
    earlier: dict[str, EditConfig] = {}
    recipe_of = lru_cache(partial(_recipe_of, collection))  # a config looks at its models once
    with collection.lock():
        parts = collection.parts(Table.CAPTIONS)
        for done, part in enumerate(parts, 1):
            before = _config_of(collection, part)
            after = before.model_copy(update={"edit": rules})
            rows = collection.read(Table.CAPTIONS, part).to_pylist()
            rows = [{**row, "caption": edit(_unedited(row), rules, collection.name)} for row in rows]
            current = recipe_of(before.model_dump_json())(part) == collection.recipe(Table.CAPTIONS, part)
            made = recipe_of(after.model_dump_json())(part) if current else None
            summary = collection.summary(Table.CAPTIONS, part)
            collection.write(Table.CAPTIONS, part, rows, recipe=made or _STALE, config=after, summary=summary)
            earlier.setdefault(before.edit.model_dump_json(), before.edit)
            progress(done, len(parts), "edited")
    return list(earlier.values())


_STALE = "edited"
"""The recipe of an edited part that the caption stage has to make again."""


def _recipe_of(collection: Collection, config: str) -> Callable[[str], str | None]:
    """Part → recipe by a config; None where what it is made from is not there."""
    by_config = recipes_by(collection, CaptionConfig.model_validate_json(config))

    def recipe_of(part: str) -> str | None:
        try:
            return by_config(part)
        except UserError:
            return None

    return recipe_of


def _config_of(collection: Collection, part: str) -> CaptionConfig:
    try:
        return CaptionConfig.model_validate(collection.config(Table.CAPTIONS, part))
    except ValidationError:
        raise UserError(
            f"{collection.root}'s captions were made by another version; run dreamloom caption on it first."
        ) from None


def _unedited(row: dict[str, Any]) -> str:
    return str(row["caption"] if row["unedited"] is None else row["unedited"])
