"""The members of a zip archive, read one by one within bounds; nothing is unpacked to disk.

What an archive says of itself is not believed: names may lead elsewhere or be repeated, sizes may lie, members may
overlap, so that ten megabytes hold petabytes (Fifield 2019, A better zip bomb).
"""

import contextlib
import lzma
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.folder_names import FolderNames, path_key
from dreamloom.base.files.image_types import is_image_name
from dreamloom.base.files.listing import is_left_out
from dreamloom.base.images.pixels import ImageError
from dreamloom.base.text import brief
from dreamloom.scrape.datasets.image_files import leads_out

MAX_IMAGE_BYTES = 2**29
"""Maximum unpacked size of an image; a few are in memory at once."""
_UTF8_NAME, _ENCRYPTED = 0x800, 0x1
"""Bits of a member's flags (APPNOTE 6.3.10, 4.4.4)."""


@dataclass
class ZipArchive:
    """An open archive, and what it holds by name."""

    file: Path
    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo] = field(default_factory=dict)
    """Path inside, with slashes → its entry; without what is left out."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Images that are left out, by a word for the reason."""
    folders: dict[str, FolderNames] = field(default_factory=dict)
    """Folder → the names of all its files."""

    @property
    def images(self) -> list[str]:
        """The paths of its images, sorted."""
        return sorted(name for name in self.members if is_image_name(name))

    def read(self, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """Reads a member whole.

        Raises:
            ImageError: it is too large, encrypted, damaged, or packed in a way that Python does not know.
        """
        member = self.members[name]
        if member.flag_bits & _ENCRYPTED:
            raise ImageError("unsupported", "it is encrypted")
        if member.file_size > max_bytes:
            raise ImageError("too_many_pixels", f"it has more than {max_bytes >> 20} MiB unpacked")
        try:
            with self.archive.open(member) as stream:
                return stream.read(max_bytes)
        except NotImplementedError as error:
            raise ImageError("unsupported", brief(error)) from error
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError) as error:
            raise ImageError("truncated", brief(error)) from error


def open_zip(file: Path) -> ZipArchive:
    """Opens an archive; reads its directory, and no member.

    Raises:
        UserError: it can't be read, or its members overlap.
    """
    try:
        found = ZipArchive(file, zipfile.ZipFile(file))
        size = file.stat().st_size
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"{file} can't be read as zip ({brief(error)}); download it again, or move it away.") from error
    entries = [entry for entry in found.archive.infolist() if entry.filename and not entry.is_dir()]
    if sum(entry.compress_size for entry in entries) > size:
        raise UserError(
            f"{file} is smaller than its members, so they overlap; it was made to fill disks: move it away."
        )
    for entry in entries:
        name = _name(entry)
        if why := _why_left_out(name, entry):
            found.left_out[why] += is_image_name(name)
        else:
            found.members.setdefault(name, entry)
    found.folders = _folders(found.members)
    return found


def _name(entry: zipfile.ZipInfo) -> str:
    """A member's path. Many programs write UTF-8 and do not say so, and Python then takes it for IBM's code page."""
    name = entry.filename
    if not entry.flag_bits & _UTF8_NAME and not name.isascii():
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return path_key(name) if not leads_out(name) else name


def _why_left_out(name: str, entry: zipfile.ZipInfo) -> str | None:
    if leads_out(name):
        return "outside"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "linked"
    return "system" if is_left_out(name) else None


def _folders(names: Iterable[str]) -> dict[str, FolderNames]:
    by_folder: dict[str, list[str]] = {}
    for name in names:
        folder, _, own = name.rpartition("/")
        by_folder.setdefault(folder, []).append(own)
    return {folder: FolderNames(own) for folder, own in by_folder.items()}
