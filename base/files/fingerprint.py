"""Identifies models by their content."""

import hashlib
import os
from pathlib import Path

from dreamloom.base.files.file_index import WholeFile, content_hashes


def fingerprint(path_or_id: str | Path) -> str:
    """Returns a name of a model's content: a hash of a file or folder; of a hub ID, the ID itself.

    Every byte counts; a file that was read before is read again only when it changed (dreamloom.base.files.file_index).
    Hidden files, such as those of git and of the hub's client, don't count.
    """
    path = Path(path_or_id).expanduser()
    if not path.exists():
        return f"id:{path_or_id}"
    names = {file: os.fsencode(file.relative_to(path)) for file in _files(path)}
    digest = hashlib.blake2b(digest_size=16)
    for name, content in zip(names.values(), content_hashes([WholeFile(file) for file in names]), strict=True):
        digest.update(b"%s\0%s\0" % (b"" if path.is_file() else name, str(content).encode()))
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """Lists a file itself, or the files of a folder that are not hidden, in a fixed order."""
    if path.is_file():
        return [path]
    files: list[Path] = []
    for parent, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())
