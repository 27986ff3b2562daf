"""The registry of source kinds: one line for each; all else about a kind is in its own file.

From the registry come the kinds of source in project.yaml, the commands `dreamloom ingest KIND`, the Prefect flows
`ingest-KIND`, and what `dreamloom plan` counts. To add a kind, write a module beside the others that defines
`KIND = SourceKind(…)`, and add its line below. Importing this package imports no kind.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamloom.scrape.datasets.source_kind import SourceKind

_MODULES = {
    "laion": "dreamloom.scrape.datasets.laion",
    "folder": "dreamloom.scrape.datasets.folder",
    "ffhq": "dreamloom.scrape.datasets.ffhq",
    "coco": "dreamloom.scrape.datasets.coco",
    "imagenet": "dreamloom.scrape.datasets.imagenet",
    "huggingface": "dreamloom.scrape.datasets.huggingface",
    "webdataset": "dreamloom.scrape.datasets.webdataset",
    "zip": "dreamloom.scrape.datasets.zip",
    "collection": "dreamloom.scrape.datasets.collection",
}
"""Name of a kind → the module whose `KIND` describes it."""


def register(name: str, module: str) -> None:
    """Adds a kind of source of another package; call it before dreamloom.flows is imported.

    Args:
        name: how project.yaml and the command line spell it.
        module: the full name of a module whose `KIND` describes it.
    """
    _MODULES[name] = module


def get_kind(name: str) -> "SourceKind[Any]":
    """Imports a kind of source and returns it.

    Raises:
        KeyError: no kind of this name is registered.
    """
    kind: SourceKind[Any] = import_module(_MODULES[name]).KIND
    return kind


def all_kinds() -> "list[SourceKind[Any]]":
    """Imports all kinds of source and returns them, in the order of their registration."""
    return [get_kind(name) for name in _MODULES]
