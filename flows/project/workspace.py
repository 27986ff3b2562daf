"""Finds a project's file and its workspace, without reading the rest of it. Imports nothing heavy."""

from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.remote import address_of
from dreamloom.base.tables.documents import DocumentError, parse_yaml, read_text

PROJECT = Path("project.yaml")


def workspace_of(path: Path) -> Path:
    """Returns the workspace that a project.yaml names, without checking anything else in it.

    Args:
        path: the file, or its folder.

    Raises:
        UserError: it can't be read, or names no workspace.
    """
    file = path / "project.yaml" if path.is_dir() else path
    workspace = read_project_file(file).get("workspace")
    if not isinstance(workspace, str):
        raise UserError(f"{file} names no workspace; see the README.")
    return file.absolute().parent / local_part(workspace).expanduser()


def local_part(workspace: Path | str) -> Path:
    """Returns the folder of a workspace; of one at an address, that of what stays here, which is named like it."""
    address = address_of(workspace)
    return Path(workspace) if address is None else Path(address.rpartition("/")[2])


def report_path(workspace: Path) -> Path:
    """Returns the file of a workspace's report."""
    return workspace / "report" / "index.html"


def read_project_file(file: Path) -> dict[str, Any]:
    """Reads the keys of a project.yaml.

    Raises:
        UserError: it can't be read, is no YAML, or has no keys.
    """
    try:
        content = parse_yaml(read_text(file)[0])
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}); name a project.yaml.") from None
    except DocumentError as error:
        raise UserError(f"{file} is not YAML: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} has no keys and values such as `name: my-project`; see the README.")
    return content


def relative_to_cwd(path: Path) -> Path:
    """Returns a path below the current folder as a relative one, and others as they are."""
    cwd = Path.cwd()
    return path.relative_to(cwd) if path.is_relative_to(cwd) else path
