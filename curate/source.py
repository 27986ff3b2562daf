"""A collection and its role in a project."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.listing import is_left_out
from dreamloom.base.sharing.workers import FOLDER as WORKERS
from dreamloom.base.versions import RUN
from dreamloom.scrape.collection import Collection, Table

_STORE = "store.json"
"""In a workspace, says where its collections are, if not there."""


class Role(StrEnum):
    """The purpose of a source."""

    TRAINING = "training"
    """What the model learns: the user's own images."""
    GROUND_TRUTH = "ground_truth"
    """What the model knows and keeps knowing: images of the world at large."""
    WITNESS = "witness"
    """What the model knows and is never trained on: it shows what becomes of what is not rehearsed."""


@dataclass(frozen=True)
class Source:
    """A collection with its role; its name is also that of its folder in the dataset."""

    collection: Collection
    role: Role
    share: float = 1.0
    """Of ground truth: its share, relative to the shares of the other sources."""
    multiply: float = 1.0
    """Of training images: how often each is shown per epoch."""

    def __post_init__(self) -> None:
        if not isinstance(self.collection, Collection):  # in a notebook no type checker says so
            raise UserError(f"A source needs a collection, not {self.collection!r}; write Collection(FOLDER).")
        if self.role not in set(Role):
            raise UserError(f"There is no role {self.role}; a source has one of {', '.join(Role)}.")

    @property
    def name(self) -> str:
        """Returns the collection's name."""
        return self.collection.name


def collection_folders(workspace: Path) -> list[Path]:
    """Returns the folders of all collections of a workspace, sorted."""
    return sorted(path for path in (workspace / "collections").glob("*/") if not is_left_out(path.name))


def note_store(workspace: Path, store: str | None, sources: Sequence[str]) -> None:
    """Notes in a workspace whose collections lie in a store where that is, and how they are called."""
    if store is not None:
        RUN.write_json(workspace / _STORE, {"store": store, "sources": list(sources)})
    else:
        (workspace / _STORE).unlink(missing_ok=True)


def workspace_collections(workspace: Path) -> list[Collection]:
    """Returns all collections of a workspace, of its folder or of its store."""
    if not (workspace / _STORE).is_file():
        return [Collection(root) for root in collection_folders(workspace)]
    noted = RUN.read_json(workspace / _STORE)
    return [Collection(f"{noted['store']}/collections/{name}") for name in noted["sources"]]


def workspace_collection(workspace: Path, name: str) -> Collection:
    """Returns a collection of a workspace; it need not exist."""
    found = (each for each in workspace_collections(workspace) if each.address and each.name == name)
    return next(found, Collection(workspace / "collections" / name))


def is_workspace(folder: Path) -> bool:
    """Tells whether a folder is a workspace that has collections."""
    return (folder / "collections").is_dir() or (folder / _STORE).is_file()


def is_collection(folder: Path) -> bool:
    """Returns whether a folder holds tables of a collection, made or begun; images may lie in a `captions/`, too."""
    collection = Collection(folder)
    is_begun = any((folder / name).exists() for name in (WORKERS, ".lock"))  # .lock: by release 0.2
    return any((folder / t).is_dir() and (collection.parts(t) or is_begun) for t in Table)
