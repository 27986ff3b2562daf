"""Edits existing captions: previews of edits, and edits of a collection. Needs no model."""

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
from dreamloom.caption.stage import decided_captions, part_recipes
from dreamloom.scrape.collection import Collection, Table, open_collection


@dataclass(frozen=True)
class Edit:
    """A caption before and after."""

    image: str
    before: str
    after: str


def preview_edits(collection: Collection, rules: EditConfig) -> list[Edit]:
    """Returns what rules would make of a collection's captions; they replace earlier edits.

    Raises:
        UserError: it has no captions.
    """
    opened = open_collection(collection, Table.CAPTIONS)
    rows = opened.read(Table.CAPTIONS, columns=["key", "caption", "unedited", "kind"]).to_pylist()
    edited = _editor(opened, rules)
    return [Edit(row["key"], row["caption"], edited(row)) for row in rows]


def preview_folder_edits(folder: Path, source: str, rules: EditConfig, progress: Progress = silent) -> list[Edit]:
    """Returns what rules would make of the captions of a folder in the format `source`.

    Raises:
        UserError: the folder has another format.
    """
    edits: list[Edit] = []

    def change(row: Row, folder_name: str) -> str:
        edits.append(Edit(row.name, row.caption or "", edit(row.caption or "", rules, folder_name)))
        return edits[-1].after

    read_rows(folder, source, Log(), progress, change)
    return edits


def edit_captions(collection: Collection, rules: EditConfig, progress: Progress = silent) -> list[EditConfig]:
    """Edits the captions of a collection by these rules, which replace earlier ones.

    Parts become what the caption stage would make of them; a stale part stays stale.

    Returns:
        The earlier rules, each once.

    Raises:
        UserError: another process uses the collection, or another version made its captions.
    """
    earlier: dict[str, EditConfig] = {}
    edited = _editor(collection, rules)
    recipe_of = lru_cache(partial(_part_recipes, collection))  # reads the models of a config only once
    with collection.lock():
        parts = collection.parts(Table.CAPTIONS)
        for done, part in enumerate(parts, 1):
            before = _config_of(collection, part)
            after = before.model_copy(update={"edit": rules})
            rows = collection.read(Table.CAPTIONS, part).to_pylist()
            rows = [{**row, "caption": edited(row)} for row in rows]
            current = recipe_of(before.model_dump_json())(part) == collection.recipe(Table.CAPTIONS, part)
            edited_recipe = recipe_of(after.model_dump_json())(part) if current else None
            summary = collection.summary(Table.CAPTIONS, part)
            collection.write(Table.CAPTIONS, part, rows, recipe=edited_recipe or _STALE, config=after, summary=summary)
            earlier.setdefault(before.edit.model_dump_json(), before.edit)
            progress(done, len(parts), "edited")
    return list(earlier.values())


_STALE = "edited"
"""The recipe of an edited part that the caption stage has to make again."""


def _part_recipes(collection: Collection, config: str) -> Callable[[str], str | None]:
    """Returns a function from part to recipe by a config; None where an upstream part is missing."""
    recipes = part_recipes(collection, CaptionConfig.model_validate_json(config))

    def recipe_of(part: str) -> str | None:
        try:
            return recipes(part)
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


def _editor(collection: Collection, rules: EditConfig) -> Callable[[dict[str, Any]], str]:
    """Returns a function from a row to its caption by these rules; what somebody decided on is not edited."""
    decided = decided_captions(collection)

    def edited(row: dict[str, Any]) -> str:
        unedited = str(row["caption"] if row["unedited"] is None else row["unedited"])
        return unedited if row["key"] in decided else edit(unedited, rules, collection.name, row["kind"])

    return edited
