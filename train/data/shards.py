"""Training images in webdataset shards: .tar files whose members share a stem, as img2dataset and others write them.

    000000012.jpg  000000012.txt  000000012.json      an image, its caption, and its metadata

Only the headers of the members are read; images are read later, from their place in the shard. A shard at an address is
fetched once, by way of a bounded cache. What is asked of it later is remembered then: its members and captions, and the
header and hash of each image.
"""

import hashlib
import json
import os
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from dreamloom.base import processes
from dreamloom.base.files.file_index import content_hashes, file_facts
from dreamloom.base.files.image_types import DECODED_EXTENSIONS, UNSUPPORTED_EXTENSIONS
from dreamloom.base.files.listing import is_left_out
from dreamloom.base.files.remote import is_remote
from dreamloom.base.files.remote_files import SHARD_CACHE_GB, whole_file
from dreamloom.base.files.remote_files import list_files as list_states
from dreamloom.base.images.headers import read_headers
from dreamloom.base.progress import Progress
from dreamloom.base.tables.documents import MAX_BYTES, DocumentError
from dreamloom.base.tables.shard_captions import sample_captions, sample_metadata
from dreamloom.base.tables.shard_keys import Place, group_samples, list_files
from dreamloom.base.threads import map_ordered
from dreamloom.caption.parts import CaptionParts
from dreamloom.caption.sidecar import Entries
from dreamloom.train.data.control_files import FolderSettings, resolve_captions
from dreamloom.train.data.image import ByteRange, TrainingImage

SHARD_SUFFIX = ".tar"
_VERSION = 3
"""Raised when `_scan` says something else of the same shard."""
_FETCHED = 2
"""Shards that are fetched at once."""
_THREADS = 4
"""Images of a shard that are hashed at once."""


class ScannedImage(NamedTuple):
    """An image in a shard."""

    name: str
    """Of the member."""
    place: Place
    captions: list[str]
    """Those of the members beside it."""


class Scan(NamedTuple):
    """What a shard holds, in its order, up to where it is broken."""

    images: list[ScannedImage]
    faults: list[tuple[str, str]]
    """Images that can't be read, each with a word for the reason."""
    is_broken: bool


def read_shard(
    file: str, name: str, folder_settings: FolderSettings, cache_gb: float = SHARD_CACHE_GB
) -> tuple[list[TrainingImage], list[tuple[str, str]]]:
    """Reads the images of a shard, in its order.

    A caption is the one that ingest takes (base.tables.shard_captions), else the name up to its first underscore.

    Args:
        file: the shard's path or address.
        name: its path inside the training folder; the names of its images begin with it.
        folder_settings: the settings of its folder.
        cache_gb: gigabytes that stay in the cache of shards, if this one is at an address and not known.

    Returns:
        The images up to where the shard is broken; and what is broken, each with a word for the reason.

    Raises:
        UserError: an address can't be read.
    """
    scan = _parse(_remembered(file, cache_gb)) if is_remote(file) else _scan(file)
    broken = [(name, "broken_shard")] if scan.is_broken else []
    broken += [(f"{name}/{member}", reason) for member, reason in scan.faults]
    images = []
    for member, (start, size), texts in scan.images:
        captions = resolve_captions(f"{name}/{member}", folder_settings, Entries(tuple(map(CaptionParts, texts))))
        source = ByteRange(file, start, size)
        images.append(TrainingImage(f"{name}/{member}", source, captions, folder_settings.image_settings))
    return images, broken


def fetch_shards(files: Sequence[str], cache_gb: float, progress: Progress) -> None:
    """Fetches the shards at addresses of which something is not known yet, each once.

    Of several processes, each begins elsewhere; what the others have done by then is known.

    Args:
        files: the addresses.
        cache_gb: gigabytes that stay in the cache.
        progress: called with the number of shards looked at.

    Raises:
        UserError: an address can't be read.
    """
    _in_turn(partial(_remembered, cache_gb=cache_gb), files, progress)


def fetch_images(images: Iterable[TrainingImage], cache_gb: float, progress: Progress) -> None:
    """Fetches the shards of images at addresses whose headers and hashes are not known yet, each once.

    Args:
        images: in shards that no one scanned, as a table says where each lies.
        cache_gb: gigabytes that stay in the cache.
        progress: called with the number of shards looked at.

    Raises:
        UserError: an address can't be read.
    """
    shards = defaultdict[str, list[ByteRange]](list)
    for image in images:
        if is_remote(image.source.file):
            shards[image.source.file].append(image.source)
    for folder in sorted({file.rpartition("/")[0] for file in shards}):
        list_states(folder)
    _in_turn(lambda file: _learn(file, shards[file], cache_gb), sorted(shards), progress)


def _in_turn(read: Callable[[str], object], files: Sequence[str], progress: Progress) -> None:
    """Reads files, each process from another one on."""
    begin = len(files) * processes.rank() // processes.world_size()
    read_ones = map_ordered(read, [*files[begin:], *files[:begin]], _FETCHED, _FETCHED)
    for done, _ in enumerate(read_ones, 1):
        progress(done, len(files), "reading shards")


def _learn(file: str, images: Sequence[ByteRange], cache_gb: float) -> None:
    """Reads the headers of images and hashes them, while their shard is in the cache, unless that was done before."""
    places = repr([(image.start, image.length) for image in images])
    wanted = hashlib.blake2b(places.encode(), digest_size=16).hexdigest()

    def read(whole: ByteRange) -> str:
        with whole_file(whole.file, cache_gb):
            read_headers(images, _THREADS)
            content_hashes(images)
        return "known"

    file_facts([ByteRange(file)], f"images {wanted}", read, num_threads=1)


def _remembered(file: str, cache_gb: float) -> str:
    """The scan of a shard at an address, as JSON."""

    def read(whole: ByteRange) -> str:
        with whole_file(whole.file, cache_gb) as stream:
            scan = _scan_stream(whole.file, stream)
            images = [ByteRange(whole.file, *image.place) for image in scan.images]
            read_headers(images, _THREADS)
            content_hashes(images)
        return json.dumps(scan)

    (known,) = file_facts([ByteRange(file)], f"shard {_VERSION}", read, num_threads=1)
    return str(known)


def _parse(scan: str) -> Scan:
    images, faults, is_broken = json.loads(scan)
    return Scan([ScannedImage(*image) for image in images], [(member, reason) for member, reason in faults], is_broken)


def _scan(file: str) -> Scan:
    try:
        with open(file, "rb") as stream:
            return _scan_stream(file, stream)
    except OSError:
        return Scan([], [], True)


def _scan_stream(file: str, stream: BinaryIO) -> Scan:
    files: dict[str, Place] = {}
    is_broken = False
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            files.update((name, place) for name, place in list_files(tar) if not is_left_out(name))
            stream.seek(tar.offset)
            is_broken = stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE)  # tarfile takes damage for the end
    except (tarfile.TarError, OSError, EOFError):
        is_broken = True
    shard_size = stream.seek(0, os.SEEK_END)
    images, faults = list[ScannedImage](), list[tuple[str, str]]()
    for spelled, places in group_samples(files).items():
        key = PurePosixPath(spelled)
        members = {f".{extension}": ByteRange(file, *place) for extension, place in places.items()}
        if not (suffixes := sorted(DECODED_EXTENSIONS & members.keys())):
            faults += [(f"{key}{suffix}", "unsupported") for suffix in sorted(UNSUPPORTED_EXTENSIONS & members.keys())]
        elif all(sum(place) <= shard_size for place in places.values()):
            name, place = f"{key}{suffixes[0]}", places[suffixes[0].removeprefix(".")]
            images.append(ScannedImage(name, place, _captions(members)))
        else:
            faults.append((f"{key}{suffixes[0]}", "truncated"))
    return Scan(images, faults, is_broken)


def _captions(members: dict[str, ByteRange]) -> list[str]:
    """The captions that the members beside the image hold; blank ones are none."""

    def read(extension: str) -> bytes:
        member = members[f".{extension}"]
        return member.read() if member.size() <= MAX_BYTES else b""

    extensions = [name.removeprefix(".") for name in members]
    try:
        metadata = sample_metadata(extensions, read)
    except DocumentError:
        metadata = {}
    try:
        return sample_captions(extensions, read, metadata)
    except DocumentError:
        return []
