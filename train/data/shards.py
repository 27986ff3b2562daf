"""Training images in webdataset shards: .tar files whose members share a stem, as img2dataset and others write them.

    000000012.jpg  000000012.txt  000000012.json      an image, its caption, and its metadata

Only the headers of the members are read; images are read later, from their place in the shard.
"""

import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

from dreamloom.base.documents import MAX_BYTES, DocumentError, decode_text, parse_json
from dreamloom.base.image_types import DECODED_EXTENSIONS
from dreamloom.base.listing import is_left_out
from dreamloom.base.shard_keys import split_dotted_keys
from dreamloom.base.tables import caption_texts
from dreamloom.caption.parts import CaptionParts
from dreamloom.caption.sidecar import Entries
from dreamloom.train.data.control_files import FolderSettings, resolve_captions
from dreamloom.train.data.image import ByteRange, TrainingImage

SHARD_SUFFIX = ".tar"

Members = dict[str, ByteRange]
"""Suffix → where the member's bytes lie."""


def read_shard(
    path: Path, name: str, folder_settings: FolderSettings
) -> tuple[list[TrainingImage], list[tuple[str, str]]]:
    """Reads the images of a shard, in its order.

    A caption is the text of the .txt or .caption, else `caption` or `text` of the .json, which may be a list, else the
    name up to its first underscore.

    Args:
        path: the shard.
        name: its path inside the training folder; the names of its images begin with it.
        folder_settings: the settings of its folder.

    Returns:
        The images up to where the shard is broken; and what is broken, each with a word for the reason.
    """
    samples: dict[str, dict[str, ByteRange]] = defaultdict(dict)
    broken = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                stem, dot, suffix = PurePosixPath(member.name).name.partition(".")
                if member.isfile() and stem and dot and not is_left_out(member.name):
                    folder = PurePosixPath(member.name).parent
                    samples[str(folder / stem)][suffix] = ByteRange(str(path), member.offset_data, member.size)
            if ByteRange(str(path), tar.offset, tarfile.BLOCKSIZE).read() != bytes(tarfile.BLOCKSIZE):
                broken.append((name, "broken_shard"))  # tarfile takes a damaged header for the end
    except (tarfile.TarError, OSError, EOFError):
        broken.append((name, "broken_shard"))
    shard_size = path.stat().st_size if path.is_file() else 0
    images = []
    for key, places in split_dotted_keys(samples).items():
        members = {f".{extension}": place for extension, place in places.items()}
        suffixes = sorted(DECODED_EXTENSIONS & members.keys())
        if not suffixes:
            continue
        suffix = suffixes[0]
        if any(member.start + member.size() > shard_size for member in members.values()):
            broken.append((f"{name}/{key}{suffix}", "truncated"))
            continue
        images.append(_image(f"{name}/{key}{suffix}", members[suffix], members, folder_settings))
    return images, broken


def _image(name: str, source: ByteRange, members: Members, folder_settings: FolderSettings) -> TrainingImage:
    captions = resolve_captions(name, folder_settings, _written(members))
    return TrainingImage(name, source, captions, folder_settings.image_settings)


def _written(members: Members) -> Entries:
    """The captions that the members beside the image hold; blank ones are none."""
    for suffix in (".txt", ".caption"):
        text = decode_text(members[suffix].read()) if _is_readable(members, suffix) else ""
        if text.strip():
            return Entries((CaptionParts(text),))
    try:
        metadata = parse_json(members[".json"].read()) if _is_readable(members, ".json") else None
        cells = [metadata.get(key) for key in ("caption", "text")] if isinstance(metadata, dict) else []
        texts = next(filter(None, map(caption_texts, cells)), [])
    except DocumentError:
        return Entries()
    return Entries(tuple(map(CaptionParts, texts)))


def _is_readable(members: Members, suffix: str) -> bool:
    return suffix in members and members[suffix].size() <= MAX_BYTES
