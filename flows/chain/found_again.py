"""Finds the collection of a source again that has another name in project.yaml now."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.curate.source import collection_folders
from dreamloom.flows.chain.steps import source_step
from dreamloom.flows.project.project import Project
from dreamloom.flows.project.sources import SourceConfig, kind_config, kind_of
from dreamloom.scrape.collection import Collection

_log = logging.getLogger(__name__)


def find_renamed_sources(project: Project) -> Iterator[tuple[str, Path]]:
    """Yields each source that has no collection yet, with the collection of no source that holds just what it asks for.

    What a collection holds hangs on the images and on the settings of its source, not on the name.
    """
    if project.store is not None:
        return
    free = [root for root in collection_folders(project.workspace) if root.name not in project.sources]
    for name, source in project.sources.items():
        if project.collection(name).root.exists():
            continue
        found = next((root for root in free if _holds(Collection(root), source)), None)
        if found is not None:
            free.remove(found)
            yield name, found


def rename_collections(project: Project) -> None:
    """Gives collections the names that their sources have now, so that nothing of them is made again.

    Raises:
        UserError: another process works on one.
    """
    for name, root in list(find_renamed_sources(project)):
        with Collection(root).lock():
            os.rename(root, project.collection(name).root)
        _log.warning("%s is called %s now; its collection is found again.", root.name, name)


def _holds(collection: Collection, source: SourceConfig) -> bool:
    kind, config = kind_of(source), kind_config(source)
    try:
        return bool(collection.parts(kind.table(config))) and not source_step(collection, kind, config).stale_parts()
    except UserError:  # the collection's own trouble, or the source's, which its step tells
        return False
