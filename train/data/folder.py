"""Reads a training folder: its images, their captions, and how each is shown.

It may be a folder in EveryDream's format, with webdataset shards (`dreamloom.train.data.shards`) among the images or
instead of them, or a table of images (`dreamloom.train.data.table`). Tables inside the folder may hold captions, too
(`dreamloom.train.data.listed`). No image is opened. Folders of shards may also lie at an address
(`dreamloom.train.data.remote_folder`), and so may what balance makes of collections there
(`dreamloom.train.data.streamed`).
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dreamloom.base.errors import UserError
from dreamloom.base.files.folder_names import FolderNames
from dreamloom.base.files.image_types import DECODED_EXTENSIONS, UNSUPPORTED_EXTENSIONS
from dreamloom.base.files.listing import is_dead_image_link, left_out_note, list_folder
from dreamloom.base.files.own_folders import refuse_own_folder
from dreamloom.base.files.remote import address_of
from dreamloom.base.files.remote_files import SHARD_CACHE_GB
from dreamloom.base.progress import Progress, silent
from dreamloom.base.tables.streamed_set import find_streamed_set
from dreamloom.base.tables.tables import TABLE_SUFFIXES
from dreamloom.caption.sidecar import parse_sidecars, stray_texts
from dreamloom.train.data.control_files import FolderSettings, make_training_image, read_folder_settings
from dreamloom.train.data.image import ImageFolder, TrainingImage
from dreamloom.train.data.listed import ListedImages
from dreamloom.train.data.notes import Notes
from dreamloom.train.data.remote_folder import lay_out, list_shards
from dreamloom.train.data.shards import SHARD_SUFFIX, fetch_shards, read_shard
from dreamloom.train.data.streamed import read_streamed_set
from dreamloom.train.data.table import read_image_table


def read_training_folder(
    path: Path, notes: Notes | None = None, progress: Progress = silent, shard_cache_gb: float = SHARD_CACHE_GB
) -> list[ImageFolder]:
    """Reads every folder with images in a training folder, in order of name.

    What systems leave in folders, masks, and folders of our own are left out (`dreamloom.base.files.listing`).

    Args:
        path: a folder, a .tar, or a .jsonl, .csv or .parquet table of images; or an address of shards (s3://…), or the
            dataset of a workspace whose images are at addresses.
        notes: is told what is odd and stops nothing.
        progress: called with the number of shards read from an address.
        shard_cache_gb: gigabytes of them that stay in the cache.

    Raises:
        UserError: `path` is none of these, holds no image or is a folder of ours, a control file is invalid, or every
            multiply is 0.
    """
    notes = Notes() if notes is None else notes
    address = address_of(path)
    if streamed := find_streamed_set(path):
        folders = read_streamed_set(streamed, notes)
    elif address:
        folders = _read_address(address, notes, progress, shard_cache_gb)
    elif path.is_dir():
        refuse_own_folder(path)
        listed = ListedImages(path, notes)
        folders = list(_tree(path, FolderSettings(), frozenset(), listed, str(path)))
        listed.note_missing()
    elif path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        folders = read_image_table(path, notes)
    elif path.is_file() and path.suffix.lower() == SHARD_SUFFIX:
        folders = [_one_shard(str(path), path.name)]
    else:
        is_config = path.suffix.lower() in (".toml", ".json")
        hint = " Of another trainer's config or list, name the folder of its images." if is_config else ""
        raise UserError(
            f"{path} is not a folder; name a training folder: folders of images with captions, a webdataset's .tar, "
            f"or a table of images ({', '.join(TABLE_SUFFIXES)}).{hint}"
        )
    where = address or path
    if not any(folder.images for folder in folders):
        if faults := [f"{name} ({reason})" for folder in folders for name, reason in folder.broken]:
            raise UserError(f"No image of {where} can be read: {', '.join(faults[:5])}; repair or replace them.")
        left_out = f" {note}" if (note := left_out_note(notes.left_out)) else ""
        raise UserError(
            f"{where} holds no images; put folders of images ({', '.join(sorted(DECODED_EXTENSIONS))}) in it.{left_out}"
        )
    if not any(image.settings.multiply for folder in folders for image in folder.images):
        raise UserError(f"Every multiply.txt in {where} is 0, so no image would be shown; raise one of them.")
    return folders


def _read_address(address: str, notes: Notes, progress: Progress, shard_cache_gb: float) -> list[ImageFolder]:
    shards, others = list_shards(address, notes)
    if address.lower().endswith(SHARD_SUFFIX) and shards == [address.rsplit("/", 1)[1]]:
        fetch_shards([address], shard_cache_gb, progress)
        return [_one_shard(address, shards[0])]
    fetch_shards([f"{address}/{name}" for name in shards], shard_cache_gb, progress)
    with TemporaryDirectory(prefix="dreamloom-") as temporary:
        lay_out(address, shards, others, Path(temporary), notes)
        listed = ListedImages(Path(temporary), notes)
        try:
            return list(_tree(listed.root, FolderSettings(), frozenset(), listed, address))
        except UserError as error:
            raise UserError(str(error).replace(temporary, address)) from error


def _one_shard(file: str, name: str) -> ImageFolder:
    images, broken = read_shard(file, name, FolderSettings())
    return ImageFolder(name, FolderSettings().image_settings.multiply, images, broken)


def _tree(
    folder: Path, outer: FolderSettings, above: frozenset[Path], listed: ListedImages, shards_at: str
) -> Iterator[ImageFolder]:
    """Reads a folder, where it holds images, and those below it, by name; follows no link that leads back up.

    Its shards are read from where they are, which for the root is `shards_at`.
    """
    real = folder.resolve()
    if real in above:
        return
    inside = list_folder(folder, listed.notes.left_out)
    names = FolderNames(entry.name for entry in inside.files if os.path.isfile(entry.path))
    settings, below = read_folder_settings(folder, outer, names, listed.notes)
    listed.add_tables(folder, names)
    image_folder = _read_images(folder, settings, names, listed, shards_at)
    for name in stray_texts(names):
        listed.notes("text files that belong to no image", (folder / name).relative_to(listed.root).as_posix())
    for name in names.unread_sidecars:
        place = (folder / name).relative_to(listed.root).as_posix()
        listed.notes("files that may hold captions and are not read", place)
    dead = [
        ((folder.relative_to(listed.root) / entry.name).as_posix(), "missing_file")
        for entry in inside.files
        if is_dead_image_link(entry)
    ]
    image_folder = replace(image_folder, broken=(*image_folder.broken, *dead))
    if image_folder.images or image_folder.broken:
        yield image_folder
    for entry in inside.folders:
        yield from _tree(Path(entry.path), below, above | {real}, listed, shards_at)


def _read_images(
    folder: Path, settings: FolderSettings, names: FolderNames, listed: ListedImages, shards_at: str
) -> ImageFolder:
    """Reads the images of a folder, without the folders below it: first its image files, then its shards."""
    inside = folder.relative_to(listed.root).as_posix()
    images: list[TrainingImage] = []
    shard_images: list[TrainingImage] = []
    broken: list[tuple[str, str]] = []
    for file_name in sorted(names):
        path, name = folder / file_name, file_name if inside == "." else f"{inside}/{file_name}"
        suffix = os.path.splitext(file_name)[1].lower()
        if suffix in DECODED_EXTENSIONS:
            own = listed.find(name)
            if own is not None and not own.is_for_training:
                broken.append((name, "other_split"))
                continue
            written = parse_sidecars(str(folder), file_name, siblings=names)
            entries = None if own is None else own.entries
            images.append(make_training_image(path, name, settings, written, listed.notes, entries))
        elif suffix in UNSUPPORTED_EXTENSIONS:
            broken.append((name, "unsupported"))
        elif suffix == SHARD_SUFFIX:
            in_shard, broken_in_shard = read_shard(f"{shards_at}/{name}", name, settings)
            shard_images += in_shard
            broken += broken_in_shard
    return ImageFolder(inside, settings.image_settings.multiply, (*images, *shard_images), tuple(broken))
