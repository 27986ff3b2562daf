"""The paths in a project: made absolute, and looked for before any work."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from dreamloom.flows.config_errors import Key, dotted
from dreamloom.scrape.index.files import is_remote

Model = TypeVar("Model", bound=BaseModel)

_MODELS: set[Key] = {
    ("score", "model"),
    ("score", "pretrained"),
    ("caption", "model"),
    ("train", "base"),
    ("train", "vae"),
}
_MODELS |= {("evaluate", "vae"), ("caption", "clip", "model"), ("caption", "clip", "pretrained")}
"""Keys that hold a folder or file, or the name of something that is not on this machine."""
_MADE = {("workspace",), ("train", "latent_cache"), ("evaluate", "latent_cache")}
"""Keys of folders that need not be there."""


def rooted(project: Model, folder: Path) -> Model:
    """A project with its paths absolute: those that are relative begin in `folder`, and ~ is the user's home."""
    return _rooted_model(project, folder, ())


def missing(project: BaseModel) -> Iterator[str]:
    """A sentence for each key of a rooted project whose file or folder is not there."""
    for key, path in _paths(project, ()):
        is_there = any(glob.iglob(path, recursive=True)) if _is_pattern(key) else Path(path).exists()
        if key not in _MADE and not is_there and not is_remote(path):
            yield f"{dotted(key)}: {path} is not there"


def _rooted_model(model: Model, folder: Path, above: Key) -> Model:
    values = {name: getattr(model, name) for name in type(model).model_fields}
    made = {n: _rooted(v, folder, (*above, n)) for n, v in values.items()}
    # only what changes: a field that is updated counts as one that the user set
    return model.model_copy(update={n: v for n, v in made.items() if v != values[n]})


def _rooted(value: Any, folder: Path, key: Key) -> Any:
    if isinstance(value, Path):
        return folder / value.expanduser()
    if isinstance(value, BaseModel):
        return _rooted_model(value, folder, key)
    if isinstance(value, dict):
        return {name: _rooted(v, folder, (*key, name)) for name, v in value.items()}
    if isinstance(value, list) and _is_pattern(key):
        return [v if is_remote(v) else str(folder / Path(v).expanduser()) for v in value]
    if isinstance(value, str) and key in _MODELS and _is_path(value, folder):
        return str(folder / Path(value).expanduser())
    return value


def _is_pattern(key: Key) -> bool:
    """A LAION source's `index`: files, folders and globs."""
    return len(key) == 3 and key[0] == "sources" and key[2] == "index"


def _is_path(value: str, folder: Path) -> bool:
    """Whether a model is given by its place: it is there, or is written as only a path is, or its parent is there."""
    if value.startswith(("/", "~", "./", "../")) or (folder / value).exists():
        return True
    parent = (folder / value).parent
    return parent != folder and parent.is_dir()


def _paths(model: BaseModel, above: Key) -> Iterator[tuple[Key, str]]:
    """The keys that hold a path, with it; in a rooted project a model given by its place begins with a slash."""
    for name in type(model).model_fields:
        value, key = getattr(model, name), (*above, name)
        if isinstance(value, BaseModel):
            yield from _paths(value, key)
        elif isinstance(value, dict):
            for each, inner in value.items():
                if isinstance(inner, BaseModel):
                    yield from _paths(inner, (*key, each))
        elif isinstance(value, Path) or (isinstance(value, str) and key in _MODELS and Path(value).is_absolute()):
            yield key, str(value)
        elif isinstance(value, list) and _is_pattern(key):
            yield from ((key, pattern) for pattern in value)
