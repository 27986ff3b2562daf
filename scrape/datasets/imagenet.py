"""ImageNet: images in folders named by synset (n01440764), which are captioned by what the synset is called.

https://www.image-net.org/download.php; https://www.kaggle.com/c/imagenet-object-localization-challenge (its layout)
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, StageConfig, Summary
from dreamloom.scrape.collection import CaptionKind, Collection, key_of
from dreamloom.scrape.datasets.ingest import (
    ListedFile,
    UserPath,
    file_version,
    find_images,
    ingest,
    part_reader,
    part_recipes,
)
from dreamloom.scrape.datasets.metadata import ImageMetadata
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize, size_of_files
from dreamloom.scrape.datasets.synsets import known_synset_names, read_synset_names

NAMES = "LOC_synset_mapping.txt"
LABELS = "LOC_val_solution.csv"
LICENCE = "ImageNet terms of access (non-commercial research and education)"
LICENCE_URL = "https://www.image-net.org/download.php"

_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC", "")
_SYNSET = re.compile(r"n\d{8}")


class ImagenetConfig(StageConfig):
    """ImageNet as Kaggle's archive unpacks, or any folder that holds folders named by synset."""

    path: UserPath = Field(description="The folder that holds ILSVRC, or train and val, or the synsets' folders.")
    split: Literal["train", "val"] = Field("train", description="Which half to take, where both are there.")
    names: UserPath | None = Field(
        None,
        description=f"A file of lines such as `n01440764 tench, Tinca tinca`, instead of the names that are known and "
        f"of the {NAMES} that may lie in the folder.",
    )
    caption: str = Field("a photo of {a} {name}", description="The caption; {a} is a or an, {name} the synset's name.")
    name_choice: Literal["first", "random", "all"] = Field(
        "first", description="Of several names: the first, one that is the same in every run, or all, with commas."
    )
    classes: list[str] = Field([], description="Only these, by synset or by any of their names; none: all.")
    per_class: int | None = Field(
        None, ge=1, description="Pictures of each synset, at most, the first ones; null: all."
    )
    part_rows: int = Field(PART_ROWS, ge=1, description="Pictures a part: the unit of work and of resume.")

    @field_validator("caption")
    @classmethod
    def _has_no_other_fields(cls, caption: str) -> str:
        try:
            caption.format(a="a", name="tench")
        except (LookupError, ValueError) as error:
            raise ValueError("may hold {a} and {name}, and no other braces") from error
        return caption


@dataclass(frozen=True)
class _Picture:
    listed: ListedFile
    synset: str | None
    """None: neither its folder nor the labels say it."""


def recipes(collection: Collection, config: ImagenetConfig) -> dict[str, str]:
    """Part → recipe; writes nothing.

    Raises:
        UserError: the folder holds no image of a synset, a class is not known, or a file can't be read.
    """
    return _recipes(config, [picture.listed for picture in _find(config)])


def ingest_imagenet(
    collection: Collection, config: ImagenetConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records ImageNet's images; see scrape.datasets.ingest. An image whose synset has no known name has no caption.

    Raises:
        UserError: the folder holds no image of a synset, a class is not known, or a file can't be read.
    """
    found, names = _find(config), _names(config)
    listed = [picture.listed for picture in found]
    synsets = {picture.listed.key: picture.synset for picture in found}

    def facts(one: ListedFile) -> ImageMetadata:
        words = names.get(synsets[one.key] or "")
        text = _caption(config, words, one.key) if words else None
        kind = CaptionKind.TEMPLATE if text is not None else CaptionKind.NONE
        return ImageMetadata(text, kind, licence=LICENCE, licence_url=LICENCE_URL)

    items = part_reader(listed, config.part_rows, facts)
    return ingest(collection, config, _recipes(config, listed), items, progress, parts)


def _recipes(config: ImagenetConfig, listed: Sequence[ListedFile]) -> dict[str, str]:
    upstream = [file_version(*filter(None, (_beside(config, NAMES), _beside(config, LABELS), config.names)))]
    return part_recipes("ingest imagenet", config, listed, config.part_rows, upstream)


def indefinite_article(name: str) -> str:
    """What stands before a name: "a ", "an ", or nothing before a plural ("sunglasses")."""
    if re.search(r"[^sui]s\b(?! )", name.partition(" (")[0].partition(",")[0]):
        return ""
    return "an " if re.match(r"(?i)[aeio](?!ne\b|uro)|u(?!ni)|hour", name) else "a "


# Which images


def _find(config: ImagenetConfig) -> list[_Picture]:
    folder = next(place for place in _places(config) if place.is_dir() or place == config.path)
    labels = _labels(config)
    found = []
    for path, _ in find_images(folder):
        below = path.relative_to(folder)
        synset = next(filter(_SYNSET.fullmatch, reversed(below.parts[:-1])), None)
        if synset is None and _SYNSET.fullmatch(folder.name):
            synset = folder.name
        listed = ListedFile(key_of("imagenet", below.as_posix()), path, file_version(path))
        found.append(_Picture(listed, synset or labels.get(path.stem)))
    if not any(picture.synset for picture in found):
        raise UserError(
            f"{folder} holds {len(found)} images, but none in a folder named by synset (n01440764); where they lie "
            f"flat, as val does, put {LABELS} into {config.path}."
        )
    return list(_chosen(config, found))


def _places(config: ImagenetConfig) -> Iterator[Path]:
    for above in _KAGGLE:
        yield config.path / above / config.split
    yield config.path


def _chosen(config: ImagenetConfig, found: list[_Picture]) -> Iterator[_Picture]:
    wanted = _wanted(config) if config.classes else None
    taken: Counter[str | None] = Counter()
    for picture in found:
        taken[picture.synset] += 1
        if config.per_class is not None and taken[picture.synset] > config.per_class:
            continue
        if wanted is None or picture.synset in wanted:
            yield picture


def _wanted(config: ImagenetConfig) -> set[str]:
    names = _names(config)
    wanted: set[str] = set()
    for asked in config.classes:
        called = {synset for synset, words in names.items() if asked.lower() in map(str.lower, words)}
        if not called and not _SYNSET.fullmatch(asked):
            raise UserError(f"No synset is called {asked}, which `classes` names; write it as {NAMES} does, or its id.")
        wanted |= called or {asked}
    return wanted


# What they are called


def _names(config: ImagenetConfig) -> dict[str, list[str]]:
    if config.names is not None:
        return read_synset_names(config.names)
    beside = _beside(config, NAMES)
    own = read_synset_names(beside) if beside is not None else {}
    known = known_synset_names()
    return {synset: known.get(synset) or own[synset] for synset in {*known, *own}}


def _beside(config: ImagenetConfig, name: str) -> Path | None:
    """A file of Kaggle's root, wherever in it the path points."""
    places = [config.path, *config.path.absolute().parents[: len(_KAGGLE)]]
    return next((place / name for place in places if (place / name).is_file()), None)


def _labels(config: ImagenetConfig) -> dict[str, str]:
    """Picture of the flat val folder → synset. Lines: ImageId,PredictionString; the latter begins with the synset."""
    file = _beside(config, LABELS)
    if file is None:
        return {}
    with file.open(encoding="utf-8", newline="") as stream:
        return {row[0]: row[1].split()[0] for row in csv.reader(stream) if len(row) > 1 and _SYNSET.match(row[1])}


def _caption(config: ImagenetConfig, words: list[str], key: str) -> str:
    if config.name_choice == "random":
        words = [words[int(key, 16) % len(words)]]
    name = ", ".join(words) if config.name_choice == "all" else words[0]
    article = indefinite_article(name).strip()
    return " ".join(config.caption.format(a=article, name=name).split())


def measure(config: ImagenetConfig) -> SourceSize:
    """Counts the images in the folder.

    Raises:
        UserError: the folder does not exist or holds no image.
    """
    return size_of_files(path for path, _ in find_images(config.path))


KIND = SourceKind(
    name="imagenet",
    help="Bring in the images of ImageNet, captioned by the names of their synsets.",
    config=ImagenetConfig,
    recipes=recipes,
    ingest=ingest_imagenet,
    measure=measure,
)
