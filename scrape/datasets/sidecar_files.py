"""Which files beside an image are its sidecars, by their names alone."""

import os

from dreamloom.base.folder_names import FolderNames, fold_name

SIDECARS = (".txt", ".caption", ".yaml", ".yml", ".json")
"""Extensions of the files beside an image that may hold its caption; the first that exists wins."""

_OF_GOOGLE = "supplemental-metadata"


def find_sidecars(image: str, siblings: FolderNames) -> list[tuple[str, str]]:
    """Finds the sidecars of an image: x.txt, X.TXT, x.jpg.txt or x.txt.txt of x.jpg.

    Case counts only where two images differ in nothing else. Windows hides extensions, so people write x.txt.txt.
    Google Photos exports x.jpg.supplemental-metadata.json, which it cuts where the name gets too long.

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
    if folded_stem not in siblings.other_stems and folded_image not in siblings.other_stems:
        return []
    suffixes = [suffix for suffix in SIDECARS if suffix in siblings.other_suffixes]
    found = []
    for suffix in suffixes:
        name: str | None = f"{stem}{suffix}"
        if name not in siblings:
            wanted = [f"{folded_stem}{suffix}", f"{folded_image}{suffix}", f"{folded_stem}{suffix}.txt"]
            if suffix == ".json":
                wanted += [f"{folded_image}.{_OF_GOOGLE[:n]}.json" for n in range(len(_OF_GOOGLE), 0, -1)]
            name = next(filter(None, (siblings.find(stem, each) for each in wanted)), None)
        if name is not None:
            found.append((suffix, name))
    return found
