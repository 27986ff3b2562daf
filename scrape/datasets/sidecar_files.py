"""Which files beside an image are its sidecars, by their names alone."""

import os
import unicodedata
from functools import lru_cache

from dreamloom.base.image_types import IMAGE_EXTENSIONS

SIDECARS = (".txt", ".caption", ".yaml", ".yml")
"""Extensions of the files beside an image that may hold its caption; the first that exists wins."""


def find_sidecars(image: str, siblings: frozenset[str]) -> list[tuple[str, str]]:
    """Finds the sidecars of an image: x.txt, X.TXT, x.jpg.txt or x.txt.txt of x.jpg.

    Case counts only where two images differ in nothing else. Windows hides extensions, so people write x.txt.txt.

    Args:
        image: the image's name.
        siblings: the names of all files in its folder.

    Returns:
        Pairs of an extension of SIDECARS and a name, in order of precedence; at most one for each extension.
    """
    stem = os.path.splitext(image)[0]
    folder = _index(siblings)
    found = []
    for suffix in SIDECARS:
        names = (folder.find(name, stem) for name in (f"{stem}{suffix}", f"{image}{suffix}", f"{stem}{suffix}.txt"))
        if name := next(filter(None, names), None):
            found.append((suffix, name))
    return found


def fold_name(name: str) -> str:
    """Returns a name as file systems compare it that disregard case and the composition of accents."""
    return unicodedata.normalize("NFC", name.casefold())


class _FolderIndex:
    """The names of a folder's files, to be found without regard to case."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.by_folded: dict[str, list[str]] = {}
        for name in sorted(names):
            self.by_folded.setdefault(fold_name(name), []).append(name)
        stems = (os.path.splitext(name) for name in names)
        self.image_stems = {stem for stem, extension in stems if extension.lower() in IMAGE_EXTENSIONS}

    def find(self, wanted: str, stem: str) -> str | None:
        """Finds a sidecar, unless it is that of another image of exactly its own stem."""
        if wanted in self.names:
            return wanted
        for name in self.by_folded.get(fold_name(wanted), ()):
            own_stem = os.path.splitext(name)[0]
            if own_stem == stem or own_stem not in self.image_stems:
                return name
        return None


@lru_cache(maxsize=8)
def _index(names: frozenset[str]) -> _FolderIndex:
    return _FolderIndex(names)
