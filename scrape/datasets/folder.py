"""A folder of images, with captions in file names or sidecars, or without any."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.files.folder_names import FolderNames
from dreamloom.base.files.given_names import reads_like_a_caption
from dreamloom.base.files.remembered import remembered
from dreamloom.base.files.tree_state import TreeLook, look_at_tree
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import PART_ROWS, Summary, recipe
from dreamloom.scrape.collection import CaptionKind, Collection, Table, key_of
from dreamloom.scrape.datasets.fields import CAPTIONS, PROVENANCE, FolderSourceConfig, KeepEmpty, PartRows, UserPath
from dreamloom.scrape.datasets.image_files import ListedFile
from dreamloom.scrape.datasets.image_runs import FoundImages, ImageRun, find_runs, list_images
from dreamloom.scrape.datasets.imagefolder import TABLES
from dreamloom.scrape.datasets.ingest import ingest, part_reader, row_version
from dreamloom.scrape.datasets.kohya import METADATA as KOHYA_TABLES
from dreamloom.scrape.datasets.kohya import read_metadata
from dreamloom.scrape.datasets.metadata import CaptionRules, ImageMetadata
from dreamloom.scrape.datasets.sidecar_files import find_sidecars
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize
from dreamloom.scrape.datasets.source_recipes import VERSION, FileVersion, SourceRecipes, file_version, stat_recipe

_log = logging.getLogger(__name__)


class FolderConfig(FolderSourceConfig):
    """A folder of images, including all folders below it; hidden ones, and those of systems, are skipped."""

    path: UserPath = Field(description="The folder of images; folders below it are included.")
    captions: Annotated[Literal["auto", "names", "sidecars", "kohya", "none"], CAPTIONS] = Field(
        "auto",
        description="Where captions are: auto takes a sidecar (.txt, .caption, .yaml), else the file name if it reads "
        "like a caption; names takes every file name without a sidecar; sidecars takes sidecars only; kohya takes its "
        "meta.json; none takes nothing. The captioning model captions images without a caption.",
    )
    caption: Annotated[str | None, CAPTIONS] = Field(
        None, description="The caption of all images; null: each image's own."
    )
    keep_empty: KeepEmpty = False
    licence: Annotated[str | None, PROVENANCE] = Field(
        None, description="Licence of the images, recorded with each; null: not known."
    )
    author: Annotated[str | None, PROVENANCE] = Field(
        None, description="Author of the images, recorded with each; null: not known."
    )
    part_rows: PartRows = PART_ROWS


class FoundCaption(Protocol):
    """A caption, and where it was found: dreamloom.caption.sidecar.Caption is one."""

    @property
    def text(self) -> str:
        """The caption."""

    @property
    def origin(self) -> str:
        """Where it was found: "name" is the file's name, anything else a sidecar."""

    @property
    def blank_sidecar(self) -> bool:
        """Whether there is a sidecar, and it is blank."""

    @property
    def encoding(self) -> str:
        """Encoding of the sidecar."""


class CaptionReader(Protocol):
    """Finds an image's caption: dreamloom.caption.sidecar.read_caption is one, which scrape may not import."""

    def __call__(self, image: Path, siblings: FolderNames | None, /) -> FoundCaption:
        """Returns the caption of an image, which may be empty, given the names of the files in its folder, if known."""


def recipes(collection: Collection, config: FolderConfig) -> dict[str, str]:
    """Returns part → recipe; writes nothing.

    Raises:
        UserError: the folder does not exist, contains no image, or contains the collection; or kohya's JSON is missing.
    """
    return _Listing(config).recipes(collection)


def ingest_folder(
    collection: Collection,
    config: FolderConfig,
    read_caption: CaptionReader,
    progress: Progress = silent,
    parts: Sequence[str] | None = None,
) -> Summary:
    """Records the images of a folder; see dreamloom.scrape.datasets.ingest.

    Args:
        collection: the collection to fill.
        config: the folder, and where its captions are.
        read_caption: finds the caption of an image, in a sidecar or its name.
        progress: called with the number of images done.
        parts: only these; None: all.

    Raises:
        UserError: the folder does not exist, contains no image, or contains the collection; or kohya's JSON is missing.
    """
    listing = _Listing(config)
    recipes = listing.recipes(collection)

    unread: dict[Path, list[str]] = {}
    guessed: list[Path] = []

    def read_and_note(image: Path, siblings: FolderNames | None) -> FoundCaption:
        caption = read_caption(image, siblings)
        guessed.extend([image] if caption.encoding in ("Windows-1252", "Latin-1") else [])
        unread.update({image.parent: siblings.unread_sidecars} if siblings else {})
        return caption

    def metadata_of(file: ListedFile) -> ImageMetadata:
        text, kind = _caption(file, config, read_and_note, listing.kohya_captions)
        return ImageMetadata(text, kind, licence=config.licence, author=config.author)

    tables = [name for name in (*TABLES, *KOHYA_TABLES) if (config.path / name).is_file()]
    if tables and config.captions == "auto" and config.caption is None:
        _log.warning(
            "%s holds %s, which may have captions and is not read; take kind: huggingface for a metadata table, or "
            "captions: kohya for its JSON.",
            config.path,
            ", ".join(tables),
        )
    reader = part_reader(listing.files, config.part_rows, metadata_of)
    summary = ingest(collection, config, recipes, reader, progress, parts, listing.known["left_out"])
    if guessed:
        text = "%d captions are not UTF-8 and are read as Windows-1252, as that of %s; if wrongly, save them as UTF-8."
        _log.warning(text, len(guessed), min(guessed))
    if others := sorted(folder / name for folder, names in unread.items() for name in names):
        text = "%s and %d more files beside images may hold captions, and are not read; rename them to .txt."
        _log.warning(text, others[0], len(others) - 1)
    return summary


def read_captions(config: FolderConfig, read_caption: CaptionReader) -> list[tuple[str, str]]:
    """Returns path in the folder and caption, of the images that have one, as `ingest_folder` records it.

    Args:
        config: the folder, and where its captions are.
        read_caption: see `ingest_folder`.

    Raises:
        UserError: the folder does not exist or contains no image; or kohya's JSON is missing.
    """
    listing = _Listing(config)
    captions = ((f.path, _caption(f, config, read_caption, listing.kohya_captions)[0]) for f in listing.all_files())
    return [(path.relative_to(config.path).as_posix(), text) for path, text in captions if text]


class _Listing:
    """The images of a folder, listed for the parts that are asked for: recipes are remembered until files change."""

    def __init__(self, config: FolderConfig) -> None:
        self._config = config
        self.files = lru_cache(1)(self._list_part)
        self._images_of = lru_cache(_DEPTH)(list_images)  # a large folder has many parts, and may have many cuts

    def recipes(self, collection: Collection) -> SourceRecipes:
        """Returns part → recipe."""
        _refuse_own_output(collection, self._config)
        return SourceRecipes(collection, Table.RECORDS, _STAGE, self._config, self._made_from, self.known["recipes"])

    @cached_property
    def known(self) -> dict[str, dict[str, Any]]:
        """Part → the recipe that knows files by name, size and time; and images left out, by a word for the reason."""
        state = self._tree.state
        if state is None or _reads_kohya(self._config):  # whose JSON may lie beside the folder
            return self._look()
        return dict(remembered(self._place("folder listing", [state]), self._look))

    def all_files(self) -> Iterator[ListedFile]:
        """Yields all images, in order."""
        return (file for part in self._parts for file in self.files(part))

    @cached_property
    def kohya_captions(self) -> dict[Path, str] | None:
        """The captions of kohya's JSON; None: the config does not ask for them."""
        if not _reads_kohya(self._config):
            return None
        paths = [run.folder / name for run in self._found.runs for name in self._names(run)]
        return _kohya_captions(self._config, paths)

    @cached_property
    def _tree(self) -> TreeLook:
        return look_at_tree([self._config.path], self._config.follow_links)

    @cached_property
    def _found(self) -> FoundImages:
        return find_runs(self._config.path, self._config.follow_links, self._tree)

    @cached_property
    def _parts(self) -> dict[str, list[ImageRun]]:
        return self._found.parts(self._config.part_rows)

    def _names(self, run: ImageRun) -> list[str]:
        return self._images_of(run.folder)[0][run.start : run.stop]

    def _made_from(self, part: str) -> list[FileVersion]:
        return [row_version(file) for file in self.files(part)]

    def _look(self) -> dict[str, dict[str, Any]]:
        recipes = {part: self._stat_recipe(part, runs) for part, runs in self._parts.items()}
        return {"recipes": recipes, "left_out": self._found.left_out}

    def _stat_recipe(self, part: str, runs: Sequence[ImageRun]) -> str:
        def compute() -> str:
            return stat_recipe(_STAGE, self._config, self._made_from(part))

        if _reads_kohya(self._config) or any(run.state is None for run in runs):
            return compute()
        inside = [os.path.relpath(run.folder, self._config.path) for run in runs]
        states = [f"{folder} {run.state} {run.start} {run.stop}" for folder, run in zip(inside, runs, strict=True)]
        return str(remembered(self._place("folder part", states), compute))

    def _place(self, what: str, upstream: Sequence[str]) -> str:
        """Returns under what it is remembered, of which all else that it depends on is the upstream."""
        # the folder's own name, and not its path, so that a folder may be moved
        name, config = self._config.path.resolve().name, self._config.model_dump_json()
        return recipe(what, VERSION, self._config, [*upstream, name, config])

    def _list_part(self, part: str) -> list[ListedFile]:
        config, files = self._config, list[ListedFile]()
        uses_sidecars = config.caption is None and config.captions in ("auto", "names", "sidecars")
        name, root = config.path.resolve().name, "" if config.path == Path() else os.path.join(config.path, "")
        for run in self._parts[part]:
            siblings = self._images_of(run.folder)[1]
            for path in (run.folder / image for image in self._names(run)):
                sidecars = find_sidecars(path.name, siblings) if uses_sidecars else []
                key = key_of("folder", name, str(path).removeprefix(root))
                caption = "" if self.kohya_captions is None else f"{self.kohya_captions.get(path)} "
                own = [path.parent / sidecar for _, sidecar in sidecars]
                files.append(ListedFile(key, path, file_version(path, *own, before=caption), siblings))
        return files


_STAGE = "ingest folder"
_DEPTH = 8
"""Folders inside one another whose names are kept: one that is cut by those below it is listed once."""


def _measure(config: FolderConfig) -> SourceSize:
    """Counts the images, unless no file changed since they were counted."""

    def count() -> dict[str, Any]:
        found = find_runs(config.path, config.follow_links, look)
        return asdict(SourceSize(found.count, "images", found.bytes))

    look = look_at_tree([config.path], config.follow_links)
    known = recipe("folder size", VERSION, config, [str(look.state), config.model_dump_json()])
    return SourceSize(**(count() if look.state is None else remembered(known, count)))


def _refuse_own_output(collection: Collection, config: FolderConfig) -> None:
    if collection.root.resolve().is_relative_to(config.path.resolve()):
        raise UserError(
            f"{config.path} contains the collection {collection.root}, so it would take in its own output; "
            "put the collection (in a project, the workspace) elsewhere, or name a folder inside it."
        )


def _kohya_captions(config: FolderConfig, images: Sequence[Path]) -> dict[Path, str]:
    """Returns image → caption, as kohya's JSON has it."""
    names = [path.relative_to(config.path).as_posix() for path in images]
    captions = read_metadata(config.path, names).captions
    return {path: captions[name] for path, name in zip(images, names, strict=True) if name in captions}


def _reads_kohya(config: FolderConfig) -> bool:
    return config.captions == "kohya" and config.caption is None


def _human(config: FolderConfig) -> CaptionRules:
    return CaptionRules(CaptionKind.HUMAN, config.keep_empty)


def _caption(
    file: ListedFile, config: FolderConfig, read_caption: CaptionReader, kohya_captions: Mapping[Path, str] | None
) -> tuple[str | None, CaptionKind]:
    if kohya_captions is not None:
        own = kohya_captions.get(file.path)
        return _human(config).apply(own, own is not None)
    if config.caption is not None:
        return config.caption, CaptionKind.TEMPLATE
    if config.captions == "none":
        return None, CaptionKind.NONE
    caption = read_caption(file.path, file.siblings)
    if caption.blank_sidecar and config.keep_empty:
        return _human(config).apply(None, is_blank=True)
    takes_name = config.captions == "names" or (config.captions == "auto" and reads_like_a_caption(caption.text))
    text = None if caption.origin == "name" and not takes_name else caption.text
    return _human(config).apply(text, caption.blank_sidecar)


KIND = SourceKind(
    name="folder",
    help="Bring in any folder of images, with captions in sidecars or file names.",
    config=FolderConfig,
    recipes=recipes,
    ingest=ingest_folder,
    measure=_measure,
    reads_captions=True,
)
