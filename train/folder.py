"""Reading an EveryDream training folder: folders of pictures, their captions, and how often each is shown."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from base.errors import UserError
from caption.sidecar import read_caption

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
"""Of pictures, in any case; EveryDream reads the first five and .bmp."""

UNUSED = frozenset({"flip_p.txt", "cond_dropout.txt", "loss_scale.txt", "shuffle_tags.txt", "batch_id.txt"}) | {
    f"{scope}.{suffix}" for scope in ("local", "global") for suffix in ("yaml", "yml")
}
"""EveryDream's other control files, which this version does not act upon: a plan names those it finds."""

MAX_MULTIPLY = 10_000
_NUMBER = re.compile(r"\d{1,12}(\.\d{0,12})?|\.\d{1,12}|\d{1,12}/0{0,9}[1-9]\d{0,9}")


@dataclass(frozen=True)
class Picture:
    """A file of a training folder, and the text it is shown with."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Folder:
    """One folder of pictures; the folders below it stand for themselves."""

    name: str
    """Its path inside the training folder, "." for the training folder itself."""
    multiply: Fraction
    """How often each picture is shown in an epoch, exact."""
    pictures: tuple[Picture, ...]
    """Sorted by name."""


def read_folder(path: Path) -> list[Folder]:
    """Reads a training folder: every folder below `path` that holds pictures, in order of name.

    No picture is opened; names that start with a dot are skipped.

    Raises:
        UserError: `path` is no folder, holds no picture, a multiply.txt is no number, or all of them are 0.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; name a training folder: folders of pictures with captions.")
    folders = [folder for place in _walk(path, frozenset()) if (folder := _read(place, path)).pictures]
    if not folders:
        raise UserError(f"{path} holds no pictures; put folders of pictures ({', '.join(sorted(EXTENSIONS))}) in it.")
    if not any(folder.multiply for folder in folders):
        raise UserError(f"Every multiply.txt in {path} is 0, so nothing would be shown; raise one of them.")
    return folders


def unused_controls(path: Path) -> list[str]:
    """EveryDream's control files below `path` that this version does not act upon, as paths inside it."""
    found = (Path(entry.path) for folder in _walk(path, frozenset()) for entry in os.scandir(folder))
    return sorted(file.relative_to(path).as_posix() for file in found if file.name in UNUSED)


def read_multiply(folder: Path) -> Fraction:
    """The number in a folder's multiply.txt: 2, 0.025 or 1/3; 1 where there is none. 0 leaves the folder out.

    Raises:
        UserError: it is not such a number, or above 10,000.
    """
    file = folder / "multiply.txt"
    if not file.is_file():
        return Fraction(1)
    text = file.read_text(encoding="utf-8-sig", errors="replace").strip()
    if not _NUMBER.fullmatch(text):
        raise UserError(
            f"{file} holds {text[:40]!r}, which is not a number such as 2, 0.025 or 1/3; write one into it."
        )
    value = Fraction(text)
    if value > MAX_MULTIPLY:
        raise UserError(f"{file} holds {text}, more than the {MAX_MULTIPLY} times an epoch that are allowed; lower it.")
    return value


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """`folder` and all folders below it, in order of name; a link that leads back up is not followed."""
    real = folder.resolve()
    if real in above:
        return
    yield folder
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _walk(Path(entry.path), above | {real})


def _read(folder: Path, root: Path) -> Folder:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    pictures = [n for n in names if Path(n).suffix.lower() in EXTENSIONS and not n.startswith(".")]
    return Folder(
        folder.relative_to(root).as_posix(),
        read_multiply(folder) if pictures else Fraction(0),
        tuple(Picture(folder / name, read_caption(folder / name).text) for name in pictures),
    )
