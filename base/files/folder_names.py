"""The names of files, to be found without regard to case, and to how tables spell them."""

import os
import posixpath
import unicodedata
from functools import cached_property

from dreamloom.base.files.image_types import IMAGE_EXTENSIONS, is_image_name
from dreamloom.base.text import without_surrogates

_OTHER_TEXTS = {*(".text", ".cap", ".captions", ".tag", ".tags", ".prompt", ".md", ".rtf", ".doc", ".docx", ".odt")}
"""Extensions that may be of captions, too, and are not read."""


class FolderNames(frozenset[str]):
    """The names of all files in a folder."""

    def find(self, stem: str, folded: str) -> str | None:
        """Finds a file that belongs to an image, unless it is that of another image of exactly its own stem.

        Args:
            stem: the image's stem.
            folded: the wanted name as `fold_name` returns it.
        """
        for name in self._by_folded.get(folded, ()):
            own_stem = os.path.splitext(name)[0]
            if own_stem == stem or own_stem not in self.image_stems:
                return name
        return None

    @cached_property
    def _by_folded(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name in sorted(name for name in self if not is_image_name(name)):
            names.setdefault(fold_name(name), []).append(name)
        return names

    @cached_property
    def other_suffixes(self) -> set[str]:
        """The extensions of the files that are no images, in lower case."""
        return {os.path.splitext(name)[1] for name in self._by_folded}

    @cached_property
    def other_stems(self) -> set[str]:
        """The names of the files that are no images, as `fold_name` returns them, without one and two extensions."""
        stems = {os.path.splitext(name)[0] for name in self._by_folded}
        return stems | {os.path.splitext(stem)[0] for stem in stems}

    @cached_property
    def unread_sidecars(self) -> list[str]:
        """Those that lie beside an image, may hold its caption, and are not read."""
        if _OTHER_TEXTS.isdisjoint(self.other_suffixes):
            return []
        stems = ((name, *os.path.splitext(name)) for name in self)
        others = ((name, stem) for name, stem, suffix in stems if suffix.lower() in _OTHER_TEXTS)
        return sorted(name for name, stem in others if {stem, os.path.splitext(stem)[0]} & self.image_stems)

    @cached_property
    def image_stems(self) -> set[str]:
        """The stems of the images among them."""
        stems = (os.path.splitext(name) for name in self)
        return {stem for stem, extension in stems if extension.lower() in IMAGE_EXTENSIONS}


def path_key(path: str) -> str:
    """Makes relative paths that mean the same equal: of Windows, of macOS, which decomposes accents, and with dots.

    Names that are not UTF-8 are read as in tables and messages (`dreamloom.base.text`).
    """
    return posixpath.normpath(unicodedata.normalize("NFC", without_surrogates(path)).replace("\\", "/"))


def fold_name(name: str) -> str:
    """Returns a name as file systems compare it that disregard case and the composition of accents."""
    folded = name.casefold()
    return folded if folded.isascii() else unicodedata.normalize("NFC", folded)
