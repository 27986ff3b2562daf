"""`dreamloom clean`: removes what nothing in a workspace hangs on any more.

| what | goes |
|---|---|
| leftovers of killed processes | after an hour |
| images of a part that has no records | after `retention.days`, as a killed stage takes them over |
| collections of sources that project.yaml no longer names | after `retention.days`, unless a run or project uses them |
| latents, which are made again where missed | after `retention.days` without use, unless a run is not finished |
| logs | after `retention.days` |
| cached tables of collections at addresses | after `retention.days` without use, unless they are of a source |
| runs | as `dreamloom prune` says, by `keep_runs` |
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dreamloom.base.files.atomic import TEMPORARY
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.curate.source import collection_folders
from dreamloom.flows.chain.chain import plan_prune, prune_runs
from dreamloom.flows.chain.collection_users import find_users
from dreamloom.flows.project.project import Project, load_project
from dreamloom.flows.project.sources import kind_config
from dreamloom.flows.project.workspace import PROJECT
from dreamloom.flows.terminal.json_output import AsJson, print_json
from dreamloom.flows.terminal.terminal import print_table, rows_table, size
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.removal import list_files, remove_collection
from dreamloom.scrape.collection.store_cache import cached_tables
from dreamloom.scrape.datasets.collection import CollectionConfig
from dreamloom.train.evaluate.runs import find_runs

_DAY_SECONDS, _LEFTOVER_SECONDS = 86_400, 3600
"""A day; and how old a leftover is at least, as a run of `dreamloom train` may write it that has a lock of its own."""


@dataclass(frozen=True)
class Rubbish:
    """A file or folder of a workspace that nothing hangs on."""

    path: Path
    why: str
    bytes: int


def clean(
    project: Path = PROJECT,
    *,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what nothing hangs on: leftovers, collections of sources that are gone, old latents and logs, old runs.

    Parameters
    ----------
    project
        The project's file, or its folder.
    dry_run
        Show what would go; remove nothing.
    as_json
        Print it as JSON.
    """
    loaded = load_project(project)
    with ExitStack() as locks:
        if loaded.workspace.exists():
            locks.enter_context(lock(loaded.workspace))
        for folder in collection_folders(loaded.workspace):
            locks.enter_context(Collection(folder).lock())
        found = sorted(find_rubbish(loaded), key=lambda each: each.path)
        runs = [removal for removal in plan_prune(loaded, loaded.keep_runs) if removal.what != "keep"]
        collections = [each.path for each in found if each.path.parent == loaded.workspace / "collections"]
        if not dry_run:
            for path in (each.path for each in found if each.path not in collections):
                _remove(path)
            prune_runs(loaded)
    for path in [] if dry_run else collections:  # each locks itself
        remove_collection(Collection(path))
    found += [Rubbish(each.run.folder, f"{each.what}: {each.why}", each.bytes) for each in runs]
    if as_json:
        print_json(found)
        return
    rows = [{"what": _name(e.path, loaded.workspace), "why": e.why, "size": size(e.bytes)} for e in found]
    if rows:
        print_table(rows_table(f"Nothing hangs on these in {loaded.workspace}", rows))
    total = size(sum(each.bytes for each in found))
    print(f"{total} would be free; nothing was removed." if dry_run else f"{total} are free now.")


def find_rubbish(project: Project) -> Iterator[Rubbish]:
    """Yields what `clean` removes, without the runs. Call it with the locks of the workspace and of its collections."""
    workspace, keep_seconds = project.workspace, project.retention.days * _DAY_SECONDS
    gone = [path for path in collection_folders(workspace) if path.name not in project.sources]
    for path in _leftovers(workspace):
        if _age(path) > _LEFTOVER_SECONDS and not any(path.is_relative_to(folder) for folder in gone):
            yield Rubbish(path, "left by a process that was killed", _size(path))
    for name in project.sources if project.store is None else ():
        for path in _images_without_records(project.collection(name)):
            if _age(path) > keep_seconds:
                yield Rubbish(path, "images of a part that has no records", _size(path))
    for path in gone:
        if _age(path / Table.RECORDS) > keep_seconds and not find_users(path, workspace):
            files = list_files(Collection(path))
            if files.made:
                yield Rubbish(path, "collection of a source that project.yaml does not name", files.bytes)
    latents = workspace / "runs" / ".latents"
    if latents.is_dir() and _age(latents) > keep_seconds and all(run.summary for run in find_runs(workspace)):
        yield Rubbish(latents, "latents, which are made again where they are missed", _size(latents))
    for log in [*workspace.glob("logs/*.log"), *workspace.glob("collections/*/logs/*.log")]:
        if _age(log) > keep_seconds:
            yield Rubbish(log, "an old log", _size(log))

    configs = map(kind_config, project.sources.values())
    libraries = [str(config.path) for config in configs if isinstance(config, CollectionConfig)]
    for folder in cached_tables([*libraries, *(project.collection(name).where for name in project.sources)]):
        if _age(folder) > max(keep_seconds, _LEFTOVER_SECONDS):
            yield Rubbish(folder, "tables of a collection at an address, which are fetched again", _size(folder))


def _name(path: Path, workspace: Path) -> str:
    return str(path.relative_to(workspace) if path.is_relative_to(workspace) else path)


def _leftovers(workspace: Path) -> Iterator[Path]:
    """What was still being written when its process ended. With all locks held, no process writes any of it now."""
    for folder, folders, files in os.walk(workspace):
        for name in [name for name in folders if name.startswith(TEMPORARY)]:
            folders.remove(name)
            yield Path(folder, name)
        folders[:] = [name for name in folders if not (Path(folder) == workspace and name == "prefect")]
        yield from (Path(folder, name) for name in files if name.startswith(TEMPORARY))


def _images_without_records(collection: Collection) -> Iterator[Path]:
    parts = set(collection.parts(Table.RECORDS)) | set(collection.parts(Table.CANDIDATES))
    for folder in (collection.root / "images").glob("[!.]*/"):
        if folder.name not in parts:
            yield folder


def _age(path: Path) -> float:
    """Seconds since anything directly in a folder, or the file, was written; 0 where there is nothing."""
    times = [entry.stat().st_mtime for entry in (path, *(path.iterdir() if path.is_dir() else ())) if entry.exists()]
    return time.time() - max(times, default=time.time())


def _size(path: Path) -> int:
    """Bytes that removing a path frees: files that are linked elsewhere, too, free none."""
    files = path.rglob("*") if path.is_dir() else [path]
    stats = [file.lstat() for file in files if not file.is_dir()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
