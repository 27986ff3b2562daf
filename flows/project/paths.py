"""Resolves the paths in a project, and checks that they exist, before any work begins; and that paths are no addresses.

The types of fields, and the PathKind in their metadata, say which of them hold paths.
"""

import glob
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from dreamloom.base.errors import UserError
from dreamloom.base.files.remote import address_of, is_remote
from dreamloom.base.stage import PathKind, path_kind_of
from dreamloom.flows.project.config_errors import Key, dotted_key, flag_name

Model = TypeVar("Model", bound=BaseModel)


def with_absolute_paths(project: Model, folder: Path) -> Model:
    """Returns a project with absolute paths: relative ones start in `folder`, and ~ is the user's home."""
    return _map_paths(project, lambda value, kind: _absolute(value, kind, folder))


def missing_paths(project: BaseModel) -> Iterator[str]:
    """Yields a sentence for each key of a project with absolute paths whose file or folder does not exist."""
    for key, path, kind in _paths(project, ()):
        if address := address_of(path):
            if kind not in _ADDRESSES:
                yield f"{dotted_key(key)}: {_refusal(address, kind)}"
            continue
        exists = any(glob.iglob(path, recursive=True)) if kind is PathKind.PATTERNS else Path(path).exists()
        if kind is not PathKind.OUTPUT and not exists:
            yield f"{dotted_key(key)}: {path} is not there"


def refuse_addresses(command: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Refuses an address that a command is given where it needs a path, before it begins.

    Args:
        command: the command; its parameters, and the fields of its configs, say what they may be (PathKind).
        arguments: name of a parameter → its value.

    Raises:
        UserError: there is one.
    """
    parameters = inspect.signature(command).parameters
    for name, value in arguments.items():
        kind = next((mark for mark in get_args(parameters[name].annotation) if isinstance(mark, PathKind)), None)
        is_flag = parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        for key, path, kind_of_path in _paths_in(value, kind):
            if kind_of_path not in _ADDRESSES and (address := address_of(path)):
                spelled = flag_name(key or (name,)) if key or is_flag else name.upper()
                raise UserError(f"{spelled}: {_refusal(address, kind_of_path)}.")


_ADDRESSES = (PathKind.ADDRESS, PathKind.PATTERNS)
"""What may be an address."""


def _refusal(address: str, kind: PathKind | None) -> str:
    if kind is PathKind.MODEL:
        return f"{address} is an address, and models are read from this machine or the hub; copy it here first"
    return (
        f"{address} is an address, and this has to be a path of this machine; docs/scale.md says what may lie in a "
        "store"
    )


def _paths_in(value: Any, kind: PathKind | None) -> Iterator[tuple[Key, str, PathKind | None]]:
    """The paths in the value of a parameter, with their keys where it is a config."""
    if isinstance(value, BaseModel):
        yield from _paths(value, ())
    elif isinstance(value, Path) or (kind is PathKind.MODEL and value is not None):
        yield (), str(value), kind
    elif isinstance(value, tuple):
        yield from (((), str(each), kind) for each in value if isinstance(each, Path))


def _map_paths(model: Model, convert: Callable[[Any, PathKind | None], Any]) -> Model:
    """The model with `convert` applied to the value of each field, also in the models inside it."""
    changed = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            converted: Any = _map_paths(value, convert)
        elif isinstance(value, dict):
            converted = {k: _map_paths(v, convert) if isinstance(v, BaseModel) else v for k, v in value.items()}
        else:
            converted = convert(value, path_kind_of(field))
        if converted != value:  # a field that is updated counts as one that the user set
            changed[name] = converted
    return model.model_copy(update=changed)


def _absolute(value: Any, kind: PathKind | None, folder: Path) -> Any:
    if isinstance(value, Path) and address_of(value) is None:
        return folder / value.expanduser()
    if kind is PathKind.PATTERNS:
        return [path if is_remote(path) else str(folder / Path(path).expanduser()) for path in value]
    if kind is PathKind.MODEL and isinstance(value, str) and _is_path(value, folder):
        return str(folder / Path(value).expanduser())
    return value


def _is_path(model: str, folder: Path) -> bool:
    """Whether a model is given by its path: it exists, or is written as only a path is, or its parent exists."""
    if model.startswith(("/", "~", "./", "../")) or (folder / model).exists():
        return True
    parent = (folder / model).parent
    return parent != folder and parent.is_dir()


def _names_a_place(model: str) -> bool:
    """Whether a model is given by its path, in a resolved project, or by an address."""
    return Path(model).is_absolute() or is_remote(model)


def _paths(model: BaseModel, above: Key) -> Iterator[tuple[Key, str, PathKind | None]]:
    """The keys that hold a path, with it. A model's name is none, as in a resolved project its path is absolute."""
    for name, field in type(model).model_fields.items():
        value, key, kind = getattr(model, name), (*above, name), path_kind_of(field)
        if isinstance(value, BaseModel):
            yield from _paths(value, key)
        elif isinstance(value, dict):
            for inner_key, inner in value.items():
                if isinstance(inner, BaseModel):
                    yield from _paths(inner, (*key, inner_key))
        elif isinstance(value, Path) or (kind is PathKind.MODEL and value and _names_a_place(value)):
            yield key, str(value), kind
        elif kind is PathKind.PATTERNS:
            yield from ((key, pattern, kind) for pattern in value)
