"""ImageNet: images in folders named by synset (n01440764), captioned by the name of the synset.

https://www.image-net.org/download.php; https://www.kaggle.com/c/imagenet-object-localization-challenge (its layout)
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, Summary
from dreamloom.base.tables.documents import decode_text
from dreamloom.base.tables.synsets import known_synset_names, read_synset_names
from dreamloom.base.text import indefinite_article
from dreamloom.scrape.collection import CaptionKind, Collection, key_of
from dreamloom.scrape.datasets.fields import CAPTIONS, IMAGES, FolderSourceConfig, OptionalPath, PartRows, UserPath
from dreamloom.scrape.datasets.image_files import ListedFile, find_images, size_of_folder
from dreamloom.scrape.datasets.ingest import ingest, part_reader, part_recipes
from dreamloom.scrape.datasets.metadata import ImageMetadata
from dreamloom.scrape.datasets.source_kind import SourceKind
from dreamloom.scrape.datasets.source_recipes import SourceRecipes, file_version

NAMES = "LOC_synset_mapping.txt"
LABELS = "LOC_val_solution.csv"
LICENCE = "ImageNet terms of access (non-commercial research and education)"
LICENCE_URL = "https://www.image-net.org/download.php"

_LAYOUTS = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC", "")
"""Where train and val may be, below the folder that the user names."""
_SYNSET = re.compile(r"n\d{8}")


class ImagenetConfig(FolderSourceConfig):
    """ImageNet as Kaggle's archive unpacks it, or any folder that contains folders named by synset."""

    path: UserPath = Field(description="The folder that contains ILSVRC, or train and val, or the synsets' folders.")
    split: Annotated[Literal["train", "val"], IMAGES] = Field(
        "train", description="Which split to take, where both exist."
    )
    classes: Annotated[list[str], IMAGES] = Field(
        [], description="Take these classes only, by synset or any of its names; empty: all."
    )
    per_class: Annotated[int | None, IMAGES] = Field(
        None, ge=1, description="Maximum number of images per synset, the first ones; null: all."
    )
    part_rows: PartRows = PART_ROWS
    caption: Annotated[str, CAPTIONS] = Field(
        "a photo of {a} {name}", description="The caption; {a} is a or an, {name} is the synset's name."
    )
    name_choice: Annotated[Literal["first", "random", "all"], CAPTIONS] = Field(
        "first", description="Which of a synset's names to use: the first, a random one that never changes, or all."
    )
    names: Annotated[OptionalPath, CAPTIONS] = Field(
        None,
        description=f"File of lines such as `n01440764 tench, Tinca tinca`; null: the built-in names, and {NAMES} in "
        "the folder for synsets without one.",
    )

    @field_validator("caption")
    @classmethod
    def _has_no_other_fields(cls, caption: str) -> str:
        try:
            caption.format(a="a", name="tench")
        except (LookupError, ValueError) as error:
            raise ValueError("may hold {a} and {name}, and no other braces") from error
        return caption


def recipes(collection: Collection, config: ImagenetConfig) -> dict[str, str]:
    """Returns part → recipe; writes nothing.

    Raises:
        UserError: the folder contains no image of a synset, a class is not known, or a file can't be read.
    """
    return _recipes(collection, config, [image.file for image in _find_synset_images(config)])


def ingest_imagenet(
    collection: Collection, config: ImagenetConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Records ImageNet's images; one whose synset has no known name has no caption.

    See dreamloom.scrape.datasets.ingest.

    Raises:
        UserError: the folder contains no image of a synset, a class is not known, or a file can't be read.
    """
    left_out = Counter[str]()
    images, names = _find_synset_images(config, left_out), _synset_names(config)
    files = [image.file for image in images]
    synsets = {image.file.key: image.synset for image in images}

    def metadata_of(file: ListedFile) -> ImageMetadata:
        synset = synsets[file.key]
        own_names = names.get(synset or "")
        text = _caption(config, own_names, file.key) if own_names else None
        kind = CaptionKind.TEMPLATE if text is not None else CaptionKind.NONE
        labels = (own_names[0] if own_names else synset,) if synset else None
        return ImageMetadata(text, kind, licence=LICENCE, licence_url=LICENCE_URL, labels=labels)

    reader = part_reader(files, config.part_rows, metadata_of)
    return ingest(collection, config, _recipes(collection, config, files), reader, progress, parts, left_out)


def _recipes(collection: Collection, config: ImagenetConfig, files: Sequence[ListedFile]) -> SourceRecipes:
    upstream = [file_version(*filter(None, (_find_beside(config, NAMES), _find_beside(config, LABELS), config.names)))]
    return part_recipes(
        collection, "ingest imagenet", config, files, config.part_rows, [*upstream, file_version(before="labels")]
    )


# Images


@dataclass(frozen=True)
class _SynsetImage:
    file: ListedFile
    synset: str | None
    """None: neither its folder nor the labels name it."""


def _find_synset_images(config: ImagenetConfig, left_out: Counter[str] | None = None) -> list[_SynsetImage]:
    folder = next(place for place in _places(config) if place.is_dir() or place == config.path)
    labels = _read_labels(config)
    images = []
    for path, _ in find_images(folder, left_out, config.follow_links):
        relative = path.relative_to(folder)
        synset = next(filter(_SYNSET.fullmatch, reversed(relative.parts[:-1])), None)
        if synset is None and _SYNSET.fullmatch(folder.name):
            synset = folder.name
        file = ListedFile(key_of("imagenet", relative.as_posix()), path, file_version(path))
        images.append(_SynsetImage(file, synset or labels.get(path.stem)))
    if not any(image.synset for image in images):
        raise UserError(
            f"{folder} contains {len(images)} images, but none in a folder named by synset (n01440764); for a flat "
            f"folder such as val, put {LABELS} into {config.path}."
        )
    selected = list(_select(config, images))
    if not selected:
        raise UserError(f"{folder} contains no image of {', '.join(config.classes)}; name other `classes`.")
    return selected


def _places(config: ImagenetConfig) -> Iterator[Path]:
    for layout in _LAYOUTS:
        yield config.path / layout / config.split
    yield config.path


def _select(config: ImagenetConfig, images: list[_SynsetImage]) -> Iterator[_SynsetImage]:
    wanted = _wanted_synsets(config) if config.classes else None
    counts: Counter[str | None] = Counter()
    for image in images:
        counts[image.synset] += 1
        if config.per_class is not None and counts[image.synset] > config.per_class:
            continue
        if wanted is None or image.synset in wanted:
            yield image


def _wanted_synsets(config: ImagenetConfig) -> set[str]:
    names = _synset_names(config)
    wanted: set[str] = set()
    for name in config.classes:
        synsets = {synset for synset, own_names in names.items() if name.lower() in map(str.lower, own_names)}
        if not synsets and not _SYNSET.fullmatch(name):
            raise UserError(f"No synset is called {name}, which `classes` names; write it as {NAMES} does, or its id.")
        wanted |= synsets or {name}
    return wanted


def _read_labels(config: ImagenetConfig) -> dict[str, str]:
    """Returns image of the flat val folder → synset. Lines are ImageId,PredictionString, which begins with a synset."""
    file = _find_beside(config, LABELS)
    if file is None:
        return {}
    rows = (line.partition(",") for line in decode_text(file.read_bytes()).splitlines())
    return {image: prediction.split()[0] for image, _, prediction in rows if _SYNSET.match(prediction)}


def _find_beside(config: ImagenetConfig, name: str) -> Path | None:
    """Finds a file in the root of Kaggle's archive, wherever in it `path` points."""
    folders = [config.path, *config.path.absolute().parents[: len(_LAYOUTS)]]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


# Captions


def _synset_names(config: ImagenetConfig) -> dict[str, list[str]]:
    if config.names is not None:
        return read_synset_names(config.names)
    file = _find_beside(config, NAMES)
    own = read_synset_names(file) if file is not None else {}
    public = known_synset_names()
    return {synset: public.get(synset) or own[synset] for synset in {*public, *own}}


def _caption(config: ImagenetConfig, names: list[str], key: str) -> str:
    if config.name_choice == "random":
        names = [names[int(key, 16) % len(names)]]
    name = ", ".join(names) if config.name_choice == "all" else names[0]
    article = indefinite_article(name).strip()
    return " ".join(config.caption.format(a=article, name=name).split())


KIND = SourceKind(
    name="imagenet",
    help="Bring in the images of ImageNet, captioned by the names of their synsets.",
    config=ImagenetConfig,
    recipes=recipes,
    ingest=ingest_imagenet,
    measure=lambda config: size_of_folder(config.path, config.follow_links),
)
