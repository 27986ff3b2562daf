"""A folder of images, with captions in names or sidecars, or without any."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

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
from dreamloom.scrape.datasets.kohya import read_metadata
from dreamloom.scrape.datasets.metadata import ImageMetadata
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize, size_of_files

SIDECARS = (".txt", ".caption", ".yaml", ".yml")
"""Endings of the files that may lie beside an image with its caption; an earlier one wins."""


class FolderConfig(StageConfig):
    """Pictures of a folder and of all folders in it; hidden ones are left out."""

    path: UserPath = Field(description="The folder; all folders below it count, too.")
    captions: Literal["auto", "names", "sidecars", "kohya", "none"] = Field(
        "auto",
        description="Where captions are: auto takes a sidecar (.txt, .caption, .yaml), else the file name where it "
        "reads like a caption; names takes every file name that has no sidecar; sidecars takes only those; kohya "
        "takes its meta.json; none takes nothing. An image without a caption gets one from the captioning model.",
    )
    template: str | None = Field(None, description="One caption for all images, instead of their own.")
    licence: str | None = Field(None, description="The licence of the images, for their provenance.")
    author: str | None = Field(None, description="Who made the images, for their provenance.")
    part_rows: int = Field(PART_ROWS, ge=1, description="Pictures a part: the unit of work and of resume.")


class FoundCaption(Protocol):
    """A caption and where it was found: dreamloom.caption.sidecar.Caption is one."""

    @property
    def text(self) -> str:
        """The caption."""

    @property
    def origin(self) -> str:
        """ "name" where it is the file's name, anything else where it is a sidecar."""


class CaptionReader(Protocol):
    """Finds an image's caption: caption.sidecar.read_caption is one. It is handed in, as scrape knows no captions."""

    def __call__(self, image: Path, /) -> FoundCaption:
        """The caption of an image, which may be empty."""


def recipes(collection: Collection, config: FolderConfig) -> dict[str, str]:
    """Part → recipe; writes nothing.

    Raises:
        UserError: the folder is not there, holds no image, or holds the collection; or it lacks kohya's JSON.
    """
    return part_recipes("ingest folder", config, _find(collection, config)[0], config.part_rows)


def ingest_folder(
    collection: Collection,
    config: FolderConfig,
    read_caption: CaptionReader,
    progress: Progress = silent,
    parts: Sequence[str] | None = None,
) -> Summary:
    """Records the images of a folder; see dreamloom.scrape.datasets.ingest.

    Raises:
        UserError: the folder is not there, holds no image, or holds the collection; or it lacks kohya's JSON.
    """
    listed, said = _find(collection, config)

    def facts(one: ListedFile) -> ImageMetadata:
        text, kind = _caption(one.path, config, read_caption) if said is None else _kept(said.get(one.path))
        return ImageMetadata(text, kind, licence=config.licence, author=config.author)

    made_by = part_recipes("ingest folder", config, listed, config.part_rows)
    return ingest(collection, config, made_by, part_reader(listed, config.part_rows, facts), progress, parts)


def reads_like_a_caption(text: str) -> bool:
    """Whether a file's name was written as a caption, and not given by a camera or a program.

    It is one if it has two or more words of letters ("a red car", not "IMG", "02", "photo 1" or "a-red-car"), or four
    letters of a script that may be written without spaces, and does not begin as programs begin names.
    """
    if _GIVEN.match(text):
        return False
    words = [w for w in text.split() if any(c.isalpha() for c in w) and not any(c.isdigit() for c in w)]
    return len(words) >= 2 or sum(unicodedata.category(c) == "Lo" for c in text) >= 4


_GIVEN = re.compile(r"(screen ?shot\b|whatsapp image\b|photo on \d|new project\b|untitled design\b)", re.IGNORECASE)


def _find(collection: Collection, config: FolderConfig) -> tuple[list[ListedFile], dict[Path, str] | None]:
    """The images, and what kohya's JSON says of them, where it is asked for."""
    if collection.root.resolve().is_relative_to(config.path.resolve()):
        raise UserError(
            f"{config.path} holds the workspace {collection.root}, so it would take in its own output; "
            "move the workspace out of it, or name a folder within."
        )
    sidecars = SIDECARS if config.template is None and config.captions in ("auto", "names", "sidecars") else ()
    listed = []
    found = find_images(config.path)
    said = _said_by_kohya(config, [path for path, _ in found])
    for path, beside in found:
        own = [path.with_suffix(s) for s in sidecars if f"{path.stem}{s}" in beside]
        # The folder's own name, and not where it lies, so that a folder may be moved
        key = key_of("folder", config.path.resolve().name, path.relative_to(config.path).as_posix())
        version = file_version(path, *own)
        listed.append(ListedFile(key, path, version if said is None else f"{said.get(path)} {version}"))
    return listed, said


def _said_by_kohya(config: FolderConfig, pictures: Sequence[Path]) -> dict[Path, str] | None:
    """Picture → caption; None where the config does not ask for them."""
    if config.captions != "kohya" or config.template is not None:
        return None
    names = [path.relative_to(config.path).as_posix() for path in pictures]
    captions = read_metadata(config.path, names).captions
    return {path: captions[name] for path, name in zip(pictures, names, strict=True) if name in captions}


def _kept(text: str | None) -> tuple[str | None, CaptionKind]:
    return text, CaptionKind.NONE if text is None else CaptionKind.HUMAN


def _caption(picture: Path, config: FolderConfig, read_caption: CaptionReader) -> tuple[str | None, CaptionKind]:
    if config.template is not None:
        return config.template, CaptionKind.TEMPLATE
    if config.captions == "none":
        return None, CaptionKind.NONE
    found = read_caption(picture)
    by_name = config.captions == "names" or (config.captions == "auto" and reads_like_a_caption(found.text))
    return _kept(None if found.origin == "name" and not by_name else found.text)


def measure(config: FolderConfig) -> SourceSize:
    """Counts the images in the folder.

    Raises:
        UserError: the folder does not exist or holds no image.
    """
    return size_of_files(path for path, _ in find_images(config.path))


KIND = SourceKind(
    name="folder",
    help="Bring in any folder of images, with captions in sidecars or file names.",
    config=FolderConfig,
    recipes=recipes,
    ingest=ingest_folder,
    measure=measure,
    reads_captions=True,
)
