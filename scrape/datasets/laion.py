"""LAION and its like: an index of image addresses, filtered into candidates that `scrape` downloads."""

from collections.abc import Sequence

from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.datasets.source_kind import SourceKind, SourceSize
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.files import find_index_files
from dreamloom.scrape.index.filter import filter_laion, filter_recipe


def recipes(collection: Collection, config: FilterConfig) -> dict[str, str]:
    """Returns the recipe of the first part, which vouches for all others; writes nothing.

    Raises:
        UserError: a pattern of `index` matches no file.
    """
    return {"00000": filter_recipe(config)}


def ingest_laion(
    collection: Collection, config: FilterConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Writes the candidates; see dreamloom.scrape.index.filter.filter_laion.

    Args:
        collection: the collection to fill.
        config: which rows of the index become candidates.
        progress: called with the number of rows read.
        parts: ignored, as the candidates are written in one piece.
    """
    return filter_laion(collection, config, progress)


def measure(config: FilterConfig) -> SourceSize:
    """Counts the rows of the index, by its footers.

    Raises:
        UserError: a pattern of `index` matches no file.
    """
    files = find_index_files(config.index)
    return SourceSize(sum(file.count_rows() for file in files), "rows", sum(file.size() for file in files))


KIND = SourceKind(
    name="laion",
    help="Filter a LAION-style index, and download the images.",
    config=FilterConfig,
    recipes=recipes,
    ingest=ingest_laion,
    measure=measure,
    table=lambda _: Table.CANDIDATES,
    stage="filter",
)
