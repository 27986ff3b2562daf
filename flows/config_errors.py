"""What pydantic finds wrong, as error_lines for the person who wrote it: which key, what is wrong, how to mend it."""

import difflib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Key = tuple[str | int, ...]


def dotted_key(key: Key) -> str:
    """A key as it is written in YAML: sources.people.min_side, sources.people.words.any[0]."""
    text = ""
    for element in key:
        text += f"[{element}]" if isinstance(element, int) else f".{element}" if text else element
    return text


def flag_name(key: Key) -> str:
    """A key as it is written on the command line: --min-side, --words.any."""
    return "--" + dotted_key(tuple(e for e in key if isinstance(e, str))).replace("_", "-") if key else ""


def error_lines(error: ValidationError, model: type[BaseModel], spell: Callable[[Key], str] = dotted_key) -> list[str]:
    """One sentence for each key that is wrong, in the order in which pydantic met them.

    Args:
        model: what was validated; its fields say which parts of pydantic's locations are keys, and which are only
            names of branches of a union.
        spell: how a key is written where the user wrote it.
    """
    found: dict[Key, list[str]] = {}
    for detail in error.errors(include_url=False):
        key, here = _locate(detail["loc"], model, unknown=detail["type"] == "extra_forbidden")
        if detail["type"].startswith("union_tag"):
            key = (*key, detail["ctx"]["discriminator"].strip("'"))
        known = [name for one in here for name in one.model_fields]
        found.setdefault(key, []).append(_what(detail, known, spell))
    return [f"{spell(key)}: {'; or '.join(dict.fromkeys(whats))}" if key else whats[0] for key, whats in found.items()]


def suggestion(word: str, known: Sequence[str]) -> str:
    """How to mend an unknown word: "did you mean x?", or the words there are."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _what(detail: ErrorDetails, known: Sequence[str], spell: Callable[[Key], str]) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key; {suggestion(str(detail['loc'][-1]), known)}"
        case "missing":
            return "is missing"
        case "union_tag_invalid":
            return f"{context['tag']!r} is none of {context['expected_tags']}".replace("'", "")
        case "union_tag_not_found":
            return "is missing"
        case "value_error" | "assertion_error":
            return str(context.get("error", detail["msg"]))
    wanted = detail["msg"].removeprefix("Input ").removeprefix("Value ")
    given = detail["input"]
    return f"{wanted[0].lower()}{wanted[1:]}" + ("" if isinstance(given, Mapping | BaseModel) else f", not {given!r}")


def _locate(loc: Sequence[str | int], model: type[BaseModel], unknown: bool) -> tuple[Key, list[type[BaseModel]]]:
    """The key as the user sees it, and the models that could have held its last element."""
    key: list[str | int] = []
    here: list[Any] = [model]
    above: list[Any] = here
    for number, element in enumerate(loc):
        below = [b for t in here for b in _below(t, element)]
        if below or (unknown and number == len(loc) - 1):
            key.append(element)
            above, here = here, below
        else:
            here = [t for t in here if _has_tag(t, element)] or here
            above = here
    return tuple(key), [t for t in above if isinstance(t, type) and issubclass(t, BaseModel)]


def _below(kind: Any, element: str | int) -> list[Any]:
    """The types that may stand under `element` in a value of type `kind`."""
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
