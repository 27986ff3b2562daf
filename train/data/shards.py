"""webdataset shards as training images: .tar files whose members share a stem, as img2dataset and others write them.

    000000012.jpg  000000012.txt  000000012.json      an image, its caption, and what else is known of it

The members are found by their headers; images stay where they are, and are read from their place in the shard.
"""

import json
import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from dreamloom.base.image_types import DECODED_EXTENSIONS
from dreamloom.caption.filename import read_name
from dreamloom.caption.sidecar import Written, decoded
from dreamloom.train.data.control_files import FolderSettings, resolve_caption
from dreamloom.train.data.image import ByteRange, TrainingImage

SHARD_SUFFIX = ".tar"

Members = dict[str, ByteRange]
"""Suffix → where its bytes lie."""


def read_shard(path: Path, name: str, controls: FolderSettings) -> tuple[list[TrainingImage], list[tuple[str, str]]]:
    """The images of a shard, in its order.

    A caption is the .txt's or .caption's text, else the .json's `caption` or `text`, else that of the name, up to its
    first underscore.

    Args:
        name: the shard's path inside the training folder; its pictures' names begin with it.

    Returns:
        The images up to where the shard is broken, and the shard's own name with the reason, where it is.
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
    whole = path.stat().st_size if path.is_file() else 0
    pictures = []
    for key, members in samples.items():
        found = sorted(DECODED_EXTENSIONS & members.keys())
        if not found:
            continue
        suffix = found[0]
        if any(part.start + part.size() > whole for part in members.values()):
            broken.append((f"{name}/{key}{suffix}", "truncated"))
            continue
        pictures.append(_picture(f"{name}/{key}{suffix}", members[suffix], members, controls))
    return pictures, broken


def _picture(name: str, stored: ByteRange, members: Members, controls: FolderSettings) -> TrainingImage:
    caption = resolve_caption(read_name(name), controls, _written(members))
    weights = tuple((tag.strip(), weight) for tag, weight in controls.tags if weight != 1)
    return TrainingImage(name, stored, caption, controls.settings, weights)


def _written(members: Members) -> Written:
    for suffix in (".txt", ".caption"):
        if suffix in members:
            return Written(decoded(members[suffix].read()), (), "txt")
    if ".json" in members:
        try:
            found: Any = json.loads(members[".json"].read())
        except ValueError:
            found = None
        if isinstance(found, dict):
            text = next((found[key] for key in ("caption", "text") if isinstance(found.get(key), str)), None)
            return Written() if text is None else Written(text, (), "txt")
    return Written()
