"""Turns pydantic's errors into sentences for the user: which key, what is wrong, how to mend it."""

import difflib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dreamloom.flows.project.renamed import current_key, related_key

Key = tuple[str | int, ...]


def dotted_key(key: Key) -> str:
    """Returns a key as it is written in YAML: sources.people.min_side, sources.people.words.any[0]."""
    text = ""
    for element in key:
        text += f"[{element}]" if isinstance(element, int) else f".{element}" if text else element
    return text


def flag_name(key: Key) -> str:
    """Returns a key as it is written on the command line: --min-side, --words.any."""
    return "--" + dotted_key(tuple(e for e in key if isinstance(e, str))).replace("_", "-") if key else ""


def error_lines(error: ValidationError, model: type[BaseModel], spell: Callable[[Key], str] = dotted_key) -> list[str]:
    """Returns one sentence for each wrong key, in pydantic's order.

    Args:
        error: pydantic's error.
        model: the validated model; its fields tell which parts of pydantic's locations are keys, and which only name
            a branch of a union.
        spell: writes a key as the user wrote it.
    """
    problems: dict[Key, list[str]] = {}
    for detail in error.errors(include_url=False):
        key, models = _locate(detail["loc"], model, unknown=detail["type"] == "extra_forbidden")
        if detail["type"].startswith("union_tag"):
            key = (*key, detail["ctx"]["discriminator"].strip("'"))
        problems.setdefault(key, []).append(_problem(detail, models))
    return [
        f"{spell(key)}: {'; or '.join(dict.fromkeys(texts))}" if key else texts[0] for key, texts in problems.items()
    ]


def unknown_keys(error: ValidationError, model: type[BaseModel]) -> list[Key]:
    """Returns the keys that no config has; see `error_lines`."""
    details = (detail for detail in error.errors(include_url=False) if detail["type"] == "extra_forbidden")
    return [_locate(detail["loc"], model, unknown=True)[0] for detail in details]


def suggestion(word: str, valid: Sequence[str]) -> str:
    """Returns how to mend an unknown word: "did you mean x?", or the list of valid words."""
    matches = difflib.get_close_matches(word, valid, n=1)
    return f"did you mean {matches[0]}?" if matches else f"valid: {', '.join(valid)}"


def _problem(detail: ErrorDetails, models: Sequence[type[BaseModel]]) -> str:
    """What is wrong with the value of a key.

    Args:
        models: the models that may have the key.
    """
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return _unknown_key(str(detail["loc"][-1]), models)
        case "missing" | "union_tag_not_found":
            return "is missing"
        case "union_tag_invalid":
            return f"{context['tag']!r} is none of {context['expected_tags']}".replace("'", "")
        case "value_error" | "assertion_error":
            return str(context.get("error", detail["msg"]))
    message, value = detail["msg"].removeprefix("Input ").removeprefix("Value "), detail["input"]
    if value is None:
        return _empty(detail, models)
    if detail["type"] == "string_type" and isinstance(value, int | float):
        return f"should be text, not the number {value!r}; put it in quotes"
    if detail["type"] in ("model_type", "dict_type"):
        message = "should be keys and values"
    elif detail["type"] in ("tuple_type", "list_type"):
        message = "should be a list"
    actual = "" if isinstance(value, Mapping | BaseModel) else f", not {value!r}"
    return f"{message[0].lower()}{message[1:]}{actual}"


def _empty(detail: ErrorDetails, models: Sequence[type[BaseModel]]) -> str:
    what = "keys below it" if detail["type"] in ("model_type", "dict_type") else "a value"
    fields = [model.model_fields.get(str(detail["loc"][-1])) for model in models]
    is_required = any(field is not None and field.is_required() for field in fields)
    return f"is empty; write {what}{'' if is_required else ', or leave it out'}"


def _unknown_key(key: str, models: Sequence[type[BaseModel]]) -> str:
    for model in models:
        if name := current_key(key, model):
            return f"is called {name} now"
        if name := related_key(key, model):
            return f"unknown key; did you mean {name}?"
    return f"unknown key; {suggestion(key, [name for model in models for name in model.model_fields])}"


def _locate(loc: Sequence[str | int], model: type[BaseModel], unknown: bool) -> tuple[Key, list[type[BaseModel]]]:
    """The key as the user sees it, and the models that may have its last element.

    Args:
        loc: pydantic's location, in which names of union branches stand between the keys.
        unknown: whether the last element is a key that no model has.
    """
    key: list[str | int] = []
    current: list[Any] = [model]
    parents: list[Any] = current
    for number, element in enumerate(loc):
        children = [child for parent in current for child in _children(parent, element)]
        if children or (unknown and number == len(loc) - 1):
            key.append(element)
            parents, current = current, children
        else:
            current = [branch for branch in current if _has_tag(branch, element)] or current
            parents = current
    return tuple(key), [parent for parent in parents if isinstance(parent, type) and issubclass(parent, BaseModel)]


def _children(kind: Any, element: str | int) -> list[Any]:
    """The types that a value of type `kind` may have at `element`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _members(kind.model_fields[element].annotation) if element in kind.model_fields else []
    arguments = get_args(kind)
    if get_origin(kind) is dict and isinstance(element, str):
        return _members(arguments[1])
    if get_origin(kind) in (list, tuple, Sequence) and isinstance(element, int):
        return _members(arguments[0])
    return []


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [m for argument in get_args(annotation) for m in _members(argument)]
    return [annotation]


def _has_tag(kind: Any, tag: str | int) -> bool:
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return False
    fields = (f.annotation for f in kind.model_fields.values())
    return any(get_origin(a) is Literal and tag in get_args(a) for a in fields)
