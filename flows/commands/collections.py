"""`dreamloom collection`: which there are, copies of them, whether they are as stored; and removal. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from dreamloom.base.errors import UserError
from dreamloom.base.files.own_folders import own_folder_kind
from dreamloom.base.files.remote import is_remote
from dreamloom.base.text import printable
from dreamloom.curate.source import collection_folders, workspace_collections
from dreamloom.flows.chain.collection_users import find_users
from dreamloom.flows.project.workspace import PROJECT, workspace_of
from dreamloom.flows.terminal.help_pages import HelpPage
from dreamloom.flows.terminal.json_output import AsJson, print_json
from dreamloom.flows.terminal.terminal import Terminal, print_table, rows_table, size
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.copying import copy_collection
from dreamloom.scrape.collection.removal import CollectionFiles, list_files, remove_collection
from dreamloom.scrape.collection.shards import copy_between, find_damage_at, pull_collection, push_collection
from dreamloom.scrape.collection.verify import find_damage
from dreamloom.scrape.datasets import all_kinds

_SHOWN = 20

app = App(name="collection", help="List, copy, verify or remove collections.", help_formatter=HelpPage())


@app.command(name="list", help_formatter=HelpPage())
def list_(folder: Path = PROJECT, *, as_json: AsJson = False) -> None:
    """List collections: name, kind, images, size, and where they are from.

    Parameters
    ----------
    folder
        A project.yaml or its folder, a workspace, a folder of collections, or a collection.
    as_json
        Print a JSON list instead; sizes are in bytes.
    """
    rows = [_row(collection) for collection in collections_in(folder)]
    if as_json:
        print_json(rows)
        return
    print_table(rows_table(f"Collections in {folder}", [row | {"size": size(row["size"])} for row in rows]))


@app.command(help_formatter=HelpPage())
def verify(collection: str) -> None:
    """Check every table and image of a collection against the hashes that were stored with them; writes nothing.

    Parameters
    ----------
    collection
        Folder of the collection, or address of a copy, such as s3://bucket/people.
    """
    if is_remote(collection):
        _verify_at(collection)
        return
    found = _collection_at(Path(collection))
    with Terminal() as terminal, terminal.watch(f"verify {found.name}") as progress:
        damage = list(find_damage(found, progress))
    _tell_damage(
        collection,
        [(str(path.relative_to(found.root)), fault) for path, fault in damage],
        "Bring them back from a copy, or delete the records of their parts and run again, which makes them anew.",
    )
    print(f"{collection}: {found.summary(Table.RECORDS).kept:,} images and all tables are as they were stored.")


def _verify_at(address: str) -> None:
    with Terminal() as terminal, terminal.watch(f"verify {address}") as progress:
        damage = list(find_damage_at(address, progress))
    _tell_damage(address, damage, "Delete its collection.json, and copy it there again.")
    print(f"{address}: all shards and tables are as they were put there.")


def _tell_damage(where: str, damage: Sequence[tuple[str, str]], cure: str) -> None:
    for name, fault in damage[:_SHOWN]:
        print(printable(f"{name}: {fault}"))
    if damage:
        more = f" ({len(damage) - _SHOWN:,} more than shown)" if len(damage) > _SHOWN else ""
        raise UserError(f"{len(damage):,} files of {where} are not as they were stored{more}. {cure}")


@app.command(name="copy", help_formatter=HelpPage())
def copy_(collection: str, to: str) -> None:
    """Copy a collection to another folder, which is there when it is whole; after a kill the same command goes on.

    Parameters
    ----------
    collection
        Folder of the collection, to which nothing is written; or its address, such as s3://bucket/people.
    to
        Folder to make; or an address, where images are kept in tars.
    """
    with Terminal() as terminal, terminal.watch(f"copy {Path(collection).name}") as progress:
        if is_remote(collection) and is_remote(to):
            copy_between(collection, to, progress)
            found = Collection(to)
        elif is_remote(collection):
            pull_collection(collection, _absolute(Path(to)), progress)
            found = Collection(_absolute(Path(to)))
        else:
            found = _collection_at(Path(collection))
            if is_remote(to):
                push_collection(found, to, progress)
            else:
                copy_collection(found, _absolute(Path(to)), progress)
    print(f"{to}: {found.summary(Table.RECORDS).kept:,} images and all tables, compared with their hashes.")


@app.command(help_formatter=HelpPage())
def remove(collection: Path, *, yes: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show what the removal of a collection would free, and what stays; with --yes, remove it.

    What dreamloom made goes: tables, images (copies of yours, which stay where they are) and logs. Decisions stay, and
    so do files of yours in the folder. A collection that a project or a run uses is refused.

    Parameters
    ----------
    collection
        Folder of the collection.
    yes
        Remove it.
    """
    found = _collection_at(collection)
    if users := find_users(found.root):
        raise UserError(
            f"{collection} is used by {'; '.join(users)}, so nothing was removed. Take the source out of project.yaml "
            "and run it, and prune the runs; then it can go."
        )
    origin = _row(found)["from"]
    files = remove_collection(found) if yes else list_files(found)
    print_table(rows_table(f"{found.name}, from {origin or 'an unknown place'}", _removal_rows(found, files)))
    done = "are free now" if yes else "would be free; nothing was removed: --yes does it"
    print(f"{size(files.bytes)} {done}.")


def _removal_rows(collection: Collection, files: CollectionFiles) -> list[dict[str, Any]]:
    images = [file for file in files.made if file.relative_to(collection.root).parts[0] == "images"]
    kinds = [
        ("images", images, "goes"),
        ("tables, logs", [file for file in files.made if file not in set(images)], "goes"),
        ("decisions", files.decisions, "stays: a source of this name heeds them again"),
        ("files of yours", files.foreign, "stays"),
    ]
    return [{"what": what, "files": len(found), "becomes": becomes} for what, found, becomes in kinds if found]


def _collection_at(path: Path) -> Collection:
    folder = _absolute(path)
    if own_folder_kind(folder) != "collection":
        raise UserError(f"{path} is no collection; `dreamloom collection list FOLDER` lists those of a folder.")
    return Collection(folder)


def collections_in(path: Path) -> list[Collection]:
    """Returns the collections of a project, a workspace or any folder; or the collection itself.

    Raises:
        UserError: there are none.
    """
    folder = _absolute(path)
    if folder.is_file() or (folder / "project.yaml").is_file():
        folder = workspace_of(folder)
    if own_folder_kind(folder) == "collection":
        return [Collection(folder)]
    if stored := [collection.where for collection in workspace_collections(folder) if collection.address]:
        raise UserError(f"The collections of {folder} lie in a store; `dreamloom show {stored[0]}` shows one.")
    roots = collection_folders(folder) if (folder / "collections").is_dir() else sorted(folder.glob("*/"))
    found = [Collection(root) for root in roots if any(Collection(root).parts(table) for table in Table)]
    if not found:
        raise UserError(f"There is no collection in {folder}; name a project, a workspace, or a folder of collections.")
    return found


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _row(collection: Collection) -> dict[str, Any]:
    first = next(table for table in Table if collection.parts(table))
    config = collection.config(first, collection.parts(first)[0])
    files = (file.lstat() for file in collection.root.rglob("*") if file.is_file())
    return {
        "name": collection.name,
        "kind": _kind(config),
        "images": collection.summary(Table.RECORDS).kept,
        "size": sum(file.st_size for file in files),
        "from": _origin(config),
    }


def _kind(config: Mapping[str, Any]) -> str:
    """Returns the kind of source whose config has just these keys, or these and few others; empty for none."""
    fields = {kind.name: kind.config.model_fields.keys() for kind in all_kinds()}
    fitting = [name for name in fields if config.keys() <= fields[name]]
    return min(fitting, key=lambda name: len(fields[name])) if fitting else ""


def _origin(config: Mapping[str, Any]) -> str:
    """Returns the folder, file or index that a source was made from."""
    origin = config.get("path") or config.get("annotations") or config.get("index") or ""
    return ", ".join(origin) if isinstance(origin, list) else str(origin)
