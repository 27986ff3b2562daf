"""What is in COCO's photos, by its instances files.

https://cocodataset.org/#format-data
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError

Categories = dict[int, tuple[str, str]]
"""Category → its name, and that of its group: ("dog", "animal")."""


@lru_cache(maxsize=1)
def read_instances(file: Path, version: str) -> tuple[Categories, dict[int, frozenset[int]]]:
    """The categories, and which of them each photo shows.

    Args:
        version: of the file, so that a changed one is read anew.

    Raises:
        UserError: it can't be read, or is no instances file.
    """
    try:
        document = json.loads(file.read_bytes(), object_hook=_needed)
        names = {each["id"]: (each["name"].lower(), each["supercategory"].lower()) for each in document["categories"]}
        shown: dict[int, set[int]] = {}
        for photo, category in document["annotations"]:
            shown.setdefault(photo, set()).add(category)
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}); name one of COCO's instances files.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no COCO instances file ({error}); name one like instances_val2017.json.") from error
    return names, {photo: frozenset(categories) for photo, categories in shown.items()}


def _needed(item: dict[str, Any]) -> Any:
    """Of an annotation its photo and category alone: the file is 450 MB, most of it outlines."""
    return (item["image_id"], item["category_id"]) if "category_id" in item and "image_id" in item else item
