"""Which members of a webdataset shard belong to one sample."""

from collections.abc import Mapping
from typing import TypeVar

from dreamloom.base.image_types import is_image_name

Place = TypeVar("Place")


def split_dotted_keys(members: Mapping[str, Mapping[str, Place]]) -> dict[str, dict[str, Place]]:
    """Gives images with dots in their names keys of their own: "photo v1.2.jpg" and "photo v1.3.jpg".

    A sample that has no image right behind the first dot of its key, but some behind others, is several: their keys end
    before the last dot.

    Args:
        members: key → what follows its first dot → place.
    """
    found: dict[str, dict[str, Place]] = {}
    for key, places in members.items():
        is_dotted = not any(is_image_name(f"x.{name}") and "." not in name for name in places)
        is_dotted = is_dotted and any("." in name and is_image_name(name) for name in places)
        for name, place in places.items():
            middle, dot, extension = name.rpartition(".") if is_dotted else ("", "", name)
            found.setdefault(f"{key}.{middle}" if dot else key, {})[extension.lower()] = place
    return found
