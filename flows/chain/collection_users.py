"""Tells which projects and runs use a collection, so that none is removed under them.

<cache>/projects/<workspace>.json     a project that ran on this machine: the collections of its sources
<cache>/workspaces/<workspace>.json   the project files that were run in a workspace
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_json
from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.curate.manifest import manifest_path, read_sources
from dreamloom.flows.project.project import Project
from dreamloom.flows.project.sources import kind_config
from dreamloom.flows.project.workspace import read_project_file, workspace_of
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.datasets.collection import CollectionConfig
from dreamloom.train.evaluate.runs import find_runs


def note_project(project: Project) -> None:
    """Notes which collections a project uses, its own and those of others; not where the cache can't be written."""
    used = [project.collection(name) for name in project.sources]
    configs = map(kind_config, project.sources.values())
    used += [Collection(config.path) for config in configs if isinstance(config, CollectionConfig)]
    workspace, name = str(project.workspace.resolve()), _name_of(project.workspace)
    where = [each.address or str(each.root.resolve()) for each in used]
    content = {"name": project.name, "workspace": workspace, "collections": where}
    with contextlib.suppress(OSError):
        commit_json(cache_folder() / "projects" / f"{name}.json", content)


def _name_of(workspace: Path) -> str:
    return hashlib.blake2b(os.fsencode(workspace.resolve()), digest_size=16).hexdigest()


def note_file(file: Path, workspace: Path) -> None:
    """Notes that a project's file was run in a workspace; not where the cache can't be written."""
    known = _files_in(workspace)
    if str(file.resolve()) not in known:
        with contextlib.suppress(OSError):
            commit_json(cache_folder() / "workspaces" / f"{_name_of(workspace)}.json", [*known, str(file.resolve())])


def warn_of_shared_workspace(file: Path, project: Project) -> list[str]:
    """Returns a sentence where another project, with other sources, was run in the workspace of this one."""
    for other in map(Path, _files_in(project.workspace)):
        with contextlib.suppress(UserError):  # it is gone, or spoiled
            sources = read_project_file(other).get("sources")
            is_other = isinstance(sources, dict) and sources.keys() != project.sources.keys()
            if is_other and other != file.resolve() and workspace_of(other).resolve() == project.workspace.resolve():
                return [
                    f"{project.workspace} is the workspace of {other}, too, so each run of one makes the training "
                    "folder of the other anew; give one of them a workspace of its own."
                ]
    return []


def _files_in(workspace: Path) -> list[str]:
    try:
        return list(json.loads((cache_folder() / "workspaces" / f"{_name_of(workspace)}.json").read_text("utf-8")))
    except (OSError, ValueError):
        return []


def find_users(collection: Path, cleaned: Path | None = None) -> list[str]:
    """Returns who uses a collection, in words.

    Known are the runs and the training folder of the workspace that it lies in, project files beside that workspace,
    and the projects that ran on this machine, as they were then.

    Args:
        collection: its folder.
        cleaned: the workspace of a project that does not name it any more, whatever it did when it last ran.
    """
    root = collection.resolve()
    workspace = root.parent.parent
    users = list(_known_projects(root, cleaned))
    if root.parent.name == "collections":
        users += _project_files(workspace, root.name)
        sources = sources_of_runs(workspace)
        if sources is None or root.name in sources:
            users.append(f"the training folder or a run of {workspace}")
    return users


def sources_of_runs(workspace: Path) -> set[str] | None:
    """Returns the sources that a run or the training folder is made of; None where an older run does not say."""
    sources = {source["name"] for source in read_sources(manifest_path(workspace))}
    for run in find_runs(workspace):
        if run.data is None:
            return None
        sources |= run.data.keys()
    return sources


def _known_projects(root: Path, cleaned: Path | None) -> Iterator[str]:
    for file in sorted((cache_folder() / "projects").glob("[!.]*.json")):
        try:
            known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        workspace = Path(known["workspace"])
        is_cleaned = cleaned is not None and workspace == cleaned.resolve()
        if str(root) in known["collections"] and workspace.is_dir() and not is_cleaned:
            yield f"the project {known['name']} in {workspace}, as of its last run"


def _project_files(workspace: Path, source: str) -> Iterator[str]:
    """Yields the project files in a workspace's folder, and beside it, that are about it and name a source."""
    for file in sorted({*workspace.glob("*.yaml"), *workspace.parent.glob("*.yaml")}):
        try:
            content, of = read_project_file(file), workspace_of(file).resolve()
        except UserError:  # any other YAML
            continue
        sources = content.get("sources")
        if of == workspace and isinstance(sources, dict) and source in sources:
            yield str(file)
