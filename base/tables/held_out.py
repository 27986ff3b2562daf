"""What held-out images show: heldout/concepts.json, which balance writes and evaluate reads.

Its form is {"images": {"ground_truth/scenes/a dog on a beach.jpg": {"concepts": ["beach", "dog"]}}}.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.tables.streamed_set import find_streamed_set
from dreamloom.base.versions import DAMAGED, RUN

FILE = "concepts.json"
"""Name of the file, in the folder of held-out images."""


@dataclass(frozen=True)
class HeldOutImage:
    """What is known of a held-out image."""

    concepts: tuple[str, ...] = ()
    """What it shows, of the things that are followed."""
    copies: str | None = None
    """The same for images that look the same, which count as one; None: there is no other."""


HeldOutImages = Mapping[str, HeldOutImage]
"""The image's path in the folder of held-out images, such as ground_truth/scenes/a dog.jpg → what is known of it."""


def to_json(images: HeldOutImages) -> dict[str, Any]:
    """Returns the images as JSON types; what is not known is left out."""
    return {name: {key: value for key, value in asdict(image).items() if value} for name, image in images.items()}


def from_json(values: Mapping[str, Any]) -> dict[str, HeldOutImage]:
    """Reads what `to_json` returned.

    Raises:
        ValueError, TypeError, AttributeError: the values have another form.
    """
    return {
        name: HeldOutImage(tuple(map(str, image.get("concepts", ()))), image.get("copies"))
        for name, image in values.items()
    }


def write_held_out(folder: Path, images: HeldOutImages) -> None:
    """Writes concepts.json into a folder of held-out images."""
    RUN.write_json(folder / FILE, {"images": to_json(images)})


def read_held_out(folder: Path) -> dict[str, HeldOutImage] | None:
    """Reads concepts.json of a folder of held-out images; None where there is none.

    Raises:
        UserError: it can't be read, or a newer release wrote it in another way.
    """
    file = folder / FILE
    if not file.exists():
        streamed = find_streamed_set(folder)
        return None if streamed is None else from_json(streamed.held_out())
    try:
        return from_json(RUN.read_json(file)["images"])
    except DAMAGED as error:
        raise UserError(f"{file} can't be read ({error}); delete it, and concepts are taken from captions.") from error
