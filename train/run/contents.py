"""What a run is trained on, as its folder remembers it: which images, with which captions, how often.

config.json tells it folder by folder, to be listed in a moment. images.parquet has each image, so that two runs can be
compared after their images were changed.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.files.atomic import commit
from dreamloom.base.versions import known_fields

IMAGES_FILE = "images.parquet"
_WRITTEN_TOGETHER = 10_000
_IMAGES = pa.schema(
    [
        pa.field("folder", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),  # inside the training folder
        pa.field("content", pa.string(), nullable=False),  # hash of its bytes
        pa.field("caption", pa.string(), nullable=False),  # several are one a line
    ]
)

if TYPE_CHECKING:
    from dreamloom.train.data.dataset import Dataset, Sample


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


class ImageContent(NamedTuple):
    """An image that was trained on."""

    name: str
    caption: str


def describe_folders(dataset: "Dataset") -> dict[str, FolderContent]:
    """Returns what each folder holds, by name."""
    contents = dataset.contents
    contents.learn(sample.image.source for sample in dataset.samples)
    of_folder: dict[int, list[tuple[str, str]]] = {}
    for sample in dataset.samples:
        image = str(contents.get(sample.image.source)), _caption(sample)
        of_folder.setdefault(sample.folder_index, []).append(image)
    folders = {}
    for index, images in of_folder.items():
        folder, images = dataset.folders[index], sorted(images)
        folders[folder.name] = FolderContent(
            len(images),
            str(folder.multiply),
            _digest(content for content, _ in images),
            _digest(f"{content}\0{caption}" for content, caption in images),
        )
    return folders


def write_images(run: Path, dataset: "Dataset") -> None:
    """Writes a row for each image into a run's folder (see the module)."""
    with commit(run / IMAGES_FILE) as temporary, pq.ParquetWriter(temporary, _IMAGES) as writer:
        for start in range(0, len(dataset.samples), _WRITTEN_TOGETHER):
            samples = dataset.samples[start : start + _WRITTEN_TOGETHER]
            rows = {
                "folder": [dataset.folders[sample.folder_index].name for sample in samples],
                "name": [sample.name for sample in samples],
                "content": [str(dataset.contents.get(sample.image.source)) for sample in samples],
                "caption": [_caption(sample) for sample in samples],
            }
            writer.write_table(pa.table(rows, _IMAGES))


def _caption(sample: "Sample") -> str:
    return "\n".join(each.caption for each in sample.image.captions)


def read_images(run: Path) -> dict[tuple[str, str], ImageContent] | None:
    """Reads the images of a run, by folder and hash of the bytes; None for runs of releases that kept no list."""
    table = _read_table(run)
    return None if table is None else _by_content(table)


def read_differing_images(
    before: Path, now: Path
) -> tuple[dict[tuple[str, str], ImageContent], dict[tuple[str, str], ImageContent]] | None:
    """Reads the images that two runs do not share with their captions, as `read_images` does; None where it does."""
    import pyarrow.compute as pc

    old, new = _read_table(before), _read_table(now)
    if old is None or new is None:
        return None
    joined = [_joined(table, "folder", "content", "caption") for table in (old, new)]
    differing = [
        _joined(table.filter(pc.invert(pc.is_in(lines, others))), "folder", "content")
        for table, lines, others in ((old, joined[0], joined[1]), (new, joined[1], joined[0]))
    ]
    keys = pa.chunked_array([*differing[0].chunks, *differing[1].chunks], pa.large_string())
    old, new = (table.filter(pc.is_in(_joined(table, "folder", "content"), keys)) for table in (old, new))
    return _by_content(old), _by_content(new)


def _read_table(run: Path) -> pa.Table | None:
    file = run / IMAGES_FILE
    return pq.ParquetFile(file).read(_IMAGES.names) if file.is_file() else None


def _by_content(table: pa.Table) -> dict[tuple[str, str], ImageContent]:
    folder, name, content, caption = (table[column].to_pylist() for column in _IMAGES.names)
    return dict(zip(zip(folder, content, strict=True), map(ImageContent, name, caption), strict=True))


def _joined(table: pa.Table, *columns: str) -> pa.ChunkedArray:
    """The columns as one text a row."""
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(
        *(table[name].cast(pa.large_string()) for name in columns), pa.scalar("\0", pa.large_string())
    )


def to_json(folders: Mapping[str, FolderContent]) -> dict[str, Any]:
    """Returns the folders as config.json holds them."""
    return {name: asdict(folder) for name, folder in folders.items()}


def from_json(stored: Mapping[str, Any] | None) -> dict[str, FolderContent] | None:
    """Reads what `to_json` wrote; None for runs of releases that did not write it."""
    if stored is None:
        return None
    return {name: FolderContent(**known_fields(FolderContent, folder)) for name, folder in stored.items()}


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for number, line in enumerate(lines):
        digest.update(f"\n{line}".encode("utf-8", "surrogatepass")[not number :])
    return digest.hexdigest()
