"""The names of WordNet's synsets, which are ImageNet's classes."""

import importlib.util
import re
from functools import cache
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import decode_text


@cache
def known_synset_names() -> dict[str, list[str]]:
    """Returns synset → its names, the plainest first.

    The first name of the challenge's 1,000 synsets is that of CLIP's authors (open_clip.zero_shot_metadata), who wrote
    "crane bird" where WordNet has "crane" for the bird and for the machine. All other names are WordNet's, of 21,844
    synsets (timm). The tables of these libraries are read without importing the libraries, which would take seconds.
    """
    tables = _package_folder("timm") / "data" / "_info"
    names = read_synset_names(tables / "imagenet_synset_to_lemma.txt")
    plain = _plain_names(_package_folder("open_clip") / "zero_shot_metadata.py")
    for synset, name in zip(challenge_synsets(), plain, strict=True):
        names[synset] = [name, *(other for other in names[synset] if other.lower() != name.lower())]
    return names


@cache
def challenge_synsets() -> list[str]:
    """Returns the 1,000 synsets of ImageNet's challenge, in its order."""
    tables = _package_folder("timm") / "data" / "_info"
    return (tables / "imagenet_synsets.txt").read_text(encoding="utf-8").split()


def read_synset_names(file: Path) -> dict[str, list[str]]:
    """Reads a file of lines such as `n01440764 tench, Tinca tinca`; returns synset → its names.

    Raises:
        UserError: it can't be read, or a line has another form.
    """
    try:
        lines = decode_text(file.read_bytes()).splitlines()
    except OSError as error:
        raise UserError(f"{file} can't be read ({error}); name a file of synsets and their names.") from error
    names = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(n\d{8})\s+(\S.*)", line.strip())
        own_names = [name.strip() for name in match[2].split(",") if name.strip()] if match else []
        if match is None or not own_names:
            raise UserError(f"{file}, line {number}: {line[:60]!r} is not like `n01440764 tench, Tinca tinca`.")
        names[match[1]] = own_names
    return names


def _plain_names(module: Path) -> list[str]:
    spec = importlib.util.spec_from_file_location("zero_shot_metadata", module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return list(loaded.IMAGENET_CLASSNAMES)


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])
