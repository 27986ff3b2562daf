"""The instances files of COCO: which categories its photos show.

https://cocodataset.org/#format-data
"""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import parse_json, read_document
from dreamloom.scrape.datasets.coco_captions import id_number

_log = logging.getLogger(__name__)

Categories = dict[int, tuple[str, str]]
"""Category → its name, and that of its group: ("dog", "animal")."""


@lru_cache(maxsize=1)
def read_instances(file: Path, version: str) -> tuple[Categories, dict[int, frozenset[int]]]:
    """Reads the categories, and photo → the categories that it shows.

    Args:
        file: the instances file.
        version: version of the file, so that a changed one is read again.

    Raises:
        UserError: it can't be read, or is not an instances file.
    """
    try:
        document = parse_json(read_document(file), object_hook=_keep_needed, of_many=True)
        names = {
            id_number(each["id"]): (each["name"].lower(), each["supercategory"].lower())
            for each in document["categories"]
        }
        shown: dict[int, set[int]] = {}
        sound = [entry for entry in document["annotations"] if isinstance(entry, tuple)]
        if left_out := len(document["annotations"]) - len(sound):
            _log.warning("%s: %d annotations name no photo and category, and are left out", file, left_out)
        for photo, category in sound:
            shown.setdefault(photo, set()).add(category)
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}); name one of COCO's instances files.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is not an instances file of COCO ({error}); name one like instances_val2017.json."
        ) from error
    return names, {photo: frozenset(categories) for photo, categories in shown.items()}


def _keep_needed(item: dict[str, Any]) -> Any:
    """Keeps only photo and category of an annotation: most of the file's 450 MB are outlines."""
    place = (id_number(item.get("image_id")), id_number(item.get("category_id")))
    return place if all(type(each) is int for each in place) else item
