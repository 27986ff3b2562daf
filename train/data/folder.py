"""Reading a training folder: what images there are, their captions, and how each is shown.

It may be a folder in EveryDream's format, with webdataset shards among the images or instead of them
(train.data.shards), or a table of images (dreamloom.train.data.table). No image is opened.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.image_types import DECODED_EXTENSIONS, UNSUPPORTED_EXTENSIONS
from dreamloom.caption.sidecar import read_written
from dreamloom.train.data.control_files import FolderSettings, make_training_image, read_folder_settings
from dreamloom.train.data.image import ImageFolder
from dreamloom.train.data.shards import SHARD_SUFFIX, read_shard
from dreamloom.train.data.table import TABLE_SUFFIXES, read_image_table


def read_training_folder(path: Path) -> list[ImageFolder]:
    """Reads a training folder: every folder below `path` that holds images, in order of name.

    Names that start with a dot are skipped.

    Args:
        path: a folder, a .tar, or a .jsonl, .csv or .parquet table of images.

    Raises:
        UserError: `path` is none of these, holds no image, a control file says what can't be, or every multiply is 0.
    """
    if path.is_dir():
        folders = list(_tree(path, path, FolderSettings(), frozenset()))
    elif path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        folders = read_image_table(path)
    elif path.is_file() and path.suffix.lower() == SHARD_SUFFIX:
        pictures, broken = read_shard(path, path.name, FolderSettings())
        folders = [ImageFolder(path.name, FolderSettings().settings.multiply, pictures, broken)]
    else:
        raise UserError(
            f"{path} is not a folder; name a training folder: folders of images with captions, a webdataset's .tar, "
            f"or a table of images ({', '.join(TABLE_SUFFIXES)})."
        )
    if not any(folder.images for folder in folders):
        raise UserError(
            f"{path} holds no images; put folders of images ({', '.join(sorted(DECODED_EXTENSIONS))}) in it."
        )
    if not any(picture.settings.multiply for folder in folders for picture in folder.images):
        raise UserError(f"Every multiply.txt in {path} is 0, so nothing would be shown; raise one of them.")
    return folders


def _tree(folder: Path, root: Path, outer: FolderSettings, above: frozenset[Path]) -> Iterator[ImageFolder]:
    """`folder`, if it holds images, and those below it, by name; a link that leads back up is not followed."""
    real = folder.resolve()
    if real in above:
        return
    entries = sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda entry: entry.name)
    names = {entry.name for entry in entries if entry.is_file()}
    controls, below = read_folder_settings(folder, outer, names)
    found = _own(folder, root, controls, sorted(names), names)
    if found.images or found.broken:
        yield found
    for entry in entries:
        if entry.is_dir():
            yield from _tree(Path(entry.path), root, below, above | {real})


def _own(folder: Path, root: Path, controls: FolderSettings, ordered: list[str], names: Collection[str]) -> ImageFolder:
    inside = folder.relative_to(root)
    pictures = [
        make_training_image(folder / name, (inside / name).as_posix(), controls, read_written(folder / name, names))
        for name in ordered
        if Path(name).suffix.lower() in DECODED_EXTENSIONS
    ]
    broken: list[tuple[str, str]] = []
    for name in ordered:
        if Path(name).suffix.lower() in UNSUPPORTED_EXTENSIONS:
            broken.append(((inside / name).as_posix(), "unsupported"))
        elif Path(name).suffix.lower() == SHARD_SUFFIX:
            more, lost = read_shard(folder / name, (inside / name).as_posix(), controls)
            pictures += more
            broken += lost
    return ImageFolder(inside.as_posix(), controls.settings.multiply, tuple(pictures), tuple(broken))
