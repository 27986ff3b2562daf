"""What a run is trained on, as its folder remembers it: which images, with which captions, how often.

config.json tells it folder by folder, to be listed in a moment. images.parquet has each image, so that two runs can be
compared after their images were changed.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.files import commit
from dreamloom.base.versions import known_fields

IMAGES_FILE = "images.parquet"
_IMAGES = pa.schema(
    [
        pa.field("folder", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),  # inside the training folder
        pa.field("content", pa.string(), nullable=False),  # hash of its bytes
        pa.field("caption", pa.string(), nullable=False),  # several are one a line
    ]
)

if TYPE_CHECKING:
    from dreamloom.train.data.dataset import Dataset


@dataclass(frozen=True)
class FolderContent:
    """What a folder of the training folder held."""

    images: int
    multiply: str
    """A fraction, such as 1/4."""
    contents: str
    """Hash of the images' bytes, whatever they are called."""
    captions: str
    """Hash of the images' bytes and captions."""


@dataclass(frozen=True)
class ImageContent:
    """An image that was trained on."""

    name: str
    caption: str


def describe_images(dataset: "Dataset") -> tuple[dict[str, FolderContent], pa.Table]:
    """Returns what each folder holds, by name, and a row for each image (see the module)."""
    dataset.contents.learn(sample.image.source for sample in dataset.samples)
    columns: dict[str, list[str]] = {name: [] for name in _IMAGES.names}
    of_folder: dict[int, list[int]] = {}
    for row, sample in enumerate(dataset.samples):
        of_folder.setdefault(sample.folder_index, []).append(row)
        columns["folder"].append(dataset.folders[sample.folder_index].name)
        columns["name"].append(sample.name)
        columns["content"].append(str(dataset.contents.get(sample.image.source)))
        columns["caption"].append("\n".join(each.caption for each in sample.image.captions))
    folders = {}
    for index, rows in of_folder.items():
        folder, contents, captions = dataset.folders[index], columns["content"], columns["caption"]
        folders[folder.name] = FolderContent(
            len(rows),
            str(folder.multiply),
            _digest(contents[row] for row in rows),
            _digest(f"{contents[row]}\0{captions[row]}" for row in rows),
        )
    return folders, pa.table(columns, _IMAGES)


def write_images(run: Path, images: pa.Table) -> None:
    """Writes the rows of `describe_images` into a run's folder."""
    with commit(run / IMAGES_FILE) as temporary:
        pq.write_table(images, temporary)


def read_images(run: Path) -> dict[str, dict[str, ImageContent]] | None:
    """Reads the images of a run: folder → hash of the bytes → image; None for runs of releases that kept no list."""
    if not (run / IMAGES_FILE).is_file():
        return None
    found: dict[str, dict[str, ImageContent]] = {}
    for row in pq.read_table(run / IMAGES_FILE, schema=_IMAGES, partitioning=None).to_pylist():
        found.setdefault(row["folder"], {})[row["content"]] = ImageContent(row["name"], row["caption"])
    return found


def to_json(folders: Mapping[str, FolderContent]) -> dict[str, Any]:
    """Returns the folders as config.json holds them."""
    return {name: asdict(folder) for name, folder in folders.items()}


def from_json(stored: Mapping[str, Any] | None) -> dict[str, FolderContent] | None:
    """Reads what `to_json` wrote; None for runs of releases that did not write it."""
    if stored is None:
        return None
    return {name: FolderContent(**known_fields(FolderContent, folder)) for name, folder in stored.items()}


def _digest(lines: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(sorted(lines)).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
