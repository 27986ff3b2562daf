"""Training images in webdataset shards: .tar files whose members share a stem, as img2dataset and others write them.

    000000012.jpg  000000012.txt  000000012.json      an image, its caption, and its metadata

Only the headers of the members are read; images are read later, from their place in the shard.
"""

import json
import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from dreamloom.base.image_types import DECODED_EXTENSIONS
from dreamloom.caption.filename import read_name
from dreamloom.caption.sidecar import SidecarContent, decode_text
from dreamloom.train.data.control_files import FolderSettings, resolve_caption, weights_of
from dreamloom.train.data.image import ByteRange, TrainingImage

SHARD_SUFFIX = ".tar"

Members = dict[str, ByteRange]
"""Suffix → where the member's bytes lie."""


def read_shard(
    path: Path, name: str, folder_settings: FolderSettings
) -> tuple[list[TrainingImage], list[tuple[str, str]]]:
    """Reads the images of a shard, in its order.

    A caption is the text of the .txt or .caption, else `caption` or `text` of the .json, else the name up to its first
    underscore.

    Args:
        path: the shard.
        name: its path inside the training folder; the names of its images begin with it.
        folder_settings: the settings of its folder.

    Returns:
        The images up to where the shard is broken; and what is broken, each with a word for the reason.
    """
    samples: dict[str, Members] = defaultdict(dict)
    broken = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                stem, dot, suffix = PurePosixPath(member.name).name.partition(".")
                if member.isfile() and stem and dot:
                    folder = PurePosixPath(member.name).parent
                    samples[str(folder / stem)]["." + suffix.lower()] = ByteRange(path, member.offset_data, member.size)
            if ByteRange(path, tar.offset, tarfile.BLOCKSIZE).read() != bytes(tarfile.BLOCKSIZE):
                broken.append((name, "broken_shard"))  # tarfile takes a damaged header for the end
    except (tarfile.TarError, OSError, EOFError):
        broken.append((name, "broken_shard"))
    shard_size = path.stat().st_size if path.is_file() else 0
    images = []
    for key, members in samples.items():
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
    caption = resolve_caption(read_name(name), folder_settings, _written(members))
    return TrainingImage(name, source, caption, folder_settings.image_settings, weights_of(folder_settings.tags))


def _written(members: Members) -> SidecarContent:
    """The caption that the members beside the image hold."""
    for suffix in (".txt", ".caption"):
        if suffix in members:
            return SidecarContent(decode_text(members[suffix].read()), (), "txt")
    if ".json" in members:
        try:
            metadata: Any = json.loads(members[".json"].read())
        except ValueError:
            metadata = None
        if isinstance(metadata, dict):
            text = next((metadata[key] for key in ("caption", "text") if isinstance(metadata.get(key), str)), None)
            return SidecarContent() if text is None else SidecarContent(text, (), "txt")
    return SidecarContent()
