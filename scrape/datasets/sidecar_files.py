"""Which files beside an image are its sidecars, by their names alone."""

import os
import re
from collections.abc import Iterator

from dreamloom.base.files.folder_names import FolderNames, fold_name

SIDECARS = (".txt", ".caption", ".yaml", ".yml", ".json")
"""Extensions of the files beside an image that may hold its caption; the first that exists wins."""

_OF_GOOGLE = ".supplemental-metadata"
_GOOGLE_LENGTH = 46
"""Characters at which Google Photos cuts the name of a .json, without its extension and its number."""
_GOOGLE_EDITS = "edited|effects|smile|mix|bearbeitet|bewerkt|modifié|modificato|ha editado|editat|edytowane|編集済み"
_GOOGLE_NAME = re.compile(rf"(?P<stem>.+?)(?P<edit>-(?:{_GOOGLE_EDITS}))?(?P<number>\(\d+\))?(?P<extension>\.[^.]*)")
""""x-edited(1).jpg", which has no .json of its own."""
_ORIGINALS = (".jpg", ".heic", ".jpeg", ".png", ".dng", ".webp")
"""Extensions of what an edited image may have been made from."""


def find_sidecars(image: str, siblings: FolderNames) -> list[tuple[str, str]]:
    """Finds the sidecars of an image: x.txt, X.TXT, x.jpg.txt or x.txt.txt of x.jpg.

    Case counts only where two images differ in nothing else. Windows hides extensions, so people write x.txt.txt.
    Google Photos exports x.jpg.json or x.jpg.supplemental-metadata.json of x.jpg and x-edited.jpg, x.jpg(1).json of
    x(1).jpg, and cuts these names where they get too long.

    Args:
        image: the image's name.
        siblings: the names of all files in its folder.

    Returns:
        Pairs of an extension of SIDECARS and a name, in order of precedence; at most one for each extension.
    """
    if siblings.other_suffixes.isdisjoint(SIDECARS):  # as beside most of a million images
        return []
    stem = os.path.splitext(image)[0]
    folded_stem, folded_image = fold_name(stem), fold_name(image)
    has_own = folded_stem in siblings.other_stems or folded_image in siblings.other_stems
    if not has_own and ".json" not in siblings.other_suffixes:
        return []
    suffixes = [suffix for suffix in SIDECARS if suffix in siblings.other_suffixes]
    found = []
    for suffix in suffixes if has_own else [".json"]:
        name: str | None = f"{stem}{suffix}"
        if name not in siblings:
            wanted = [f"{folded_stem}{suffix}", f"{folded_image}{suffix}", f"{folded_stem}{suffix}.txt"]
            wanted += _google_names(folded_image, siblings) if suffix == ".json" else []
            name = next(filter(None, (siblings.find(stem, each) for each in wanted)), None)
        if name is not None:
            found.append((suffix, name))
    return found


def _google_names(image: str, siblings: FolderNames) -> Iterator[str]:
    """Yields the names that Google Photos may give to an image's .json, folded as the image's own."""
    if match := _GOOGLE_NAME.fullmatch(image):
        number = match["number"] or ""
        for extension in dict.fromkeys((match["extension"], *(_ORIGINALS if match["edit"] else ()))):
            title = f"{match['stem']}{extension}"
            for end in range(len(_OF_GOOGLE), 0, -1) if title in siblings.other_stems else ():
                yield f"{title}{_OF_GOOGLE[:end]}{number}.json"
            yield f"{title[:_GOOGLE_LENGTH]}{number}.json"
