"""What the rest of the program needs to know about a kind of source; see dreamloom.scrape.datasets."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from dreamloom.base.stage import StageConfig, Summary
from dreamloom.scrape.collection import Collection, Table

Config = TypeVar("Config", bound=StageConfig)


@dataclass(frozen=True)
class SourceSize:
    """How much a source has to offer."""

    count: int
    unit: str
    """What is counted: images, rows, shards, …"""
    bytes: int
    """Bytes of its files."""


def size_of_files(files: Iterable[Path], unit: str = "images") -> SourceSize:
    """Measures files, one of the unit each; one that is gone, or a link to nothing, has no bytes."""
    sizes = [_size(file) for file in files]
    return SourceSize(len(sizes), unit, sum(sizes))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


@dataclass(frozen=True)
class SourceKind(Generic[Config]):
    """A kind of source."""

    name: str
    """How project.yaml and the command line spell it."""
    help: str
    """One sentence for --help, forms and the dashboard; an imperative."""
    config: type[Config]
    """Its fields are the keys in project.yaml and the flags of its command."""
    recipes: Callable[[Collection, Config], Mapping[str, str]]
    """Returns part → recipe of the table; writes nothing."""
    ingest: Callable[..., Summary]
    """Fills the table of a collection: `ingest(collection, config, progress=…, parts=…)`."""
    measure: Callable[[Config], SourceSize]
    """Counts what the source has to offer, by names and footers alone."""
    table: Callable[[Config], Table] = lambda _: Table.RECORDS
    """The table that `ingest` fills. Candidates are downloaded by `scrape` afterwards."""
    stage: Literal["ingest", "filter"] = "ingest"
    """The stage that runs `ingest`. Kinds of the stage `ingest` have a command and a flow of their own."""
    reads_captions: bool = False
    """Whether `ingest` also takes `read_caption`, which the caller provides because scrape may not import caption."""

    def needs_scrape(self, config: Config) -> bool:
        """Tells whether the images are still to be downloaded after `ingest`."""
        return self.table(config) is Table.CANDIDATES
