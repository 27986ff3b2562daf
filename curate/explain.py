"""The limits of a stage's config in words, each with the value of a row: "side ≥ 512: 640 × 480"."""

from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]


def explain_limits(config: Row, row: Row) -> list[str]:
    """Returns the limits that filter, scrape or ingest held a row to, in words; limits that are off are left out.

    Args:
        config: the stage's config, as the metadata of its part has it. `min_x` and `max_x` are limits of x.
        row: the row as the stage saw it; a limit of a value that it lacks is left out.
    """
    values = _values(row)
    sentences = []
    for field, limit in config.items():
        if limit is None or limit == [] or limit == "":
            continue
        bound, _, name = field.partition("_")
        if bound in ("min", "max") and name in values:
            sentences.append(_limit(name, "≥" if bound == "min" else "≤", limit, values[name]))
        elif field in _SENTENCES:
            sentences += _SENTENCES[field](limit, row)
    return sentences


def explain_minimum(name: str, limit: float, row: Row) -> str | None:
    """Returns one limit and a row's value in words; None where the row does not have this value at all."""
    return _limit(name, "≥", limit, _value(row[name])) if name in row else None


def _limit(name: str, sign: str, limit: float, value: str) -> str:
    return f"{name} {sign} {_number(limit)}: {value}"


def _values(row: Row) -> dict[str, str]:
    """Name → value of what limits are set on: the image as it came where that is known, else as it is stored."""
    width, height = (row.get(f"original_{side}") or row.get(side) for side in ("width", "height"))
    values = {}
    if width and height:
        values["side"] = f"{width} × {height}"
        values["pixels"] = f"{width * height}"
        values["aspect"] = f"{max(width, height) / min(width, height):.2f}"
    names = ("aesthetic", "similarity", "punsafe", "pwatermark", "bytes")
    return values | {name: _value(row[name]) for name in names if name in row}


def _value(value: float | None) -> str:
    return "not known" if value is None else _number(value)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _words(words: Mapping[str, list[str]], row: Row) -> list[str]:
    verbs = {"any": "says one of", "all": "says all of", "none": "says none of"}
    verbs |= {"regex": "matches all of", "not_regex": "matches none of"}
    return [f"text {verbs[kind]}: {', '.join(listed)}" for kind, listed in words.items() if listed]


def _languages(languages: list[str], row: Row) -> list[str]:
    return [f"language is one of {', '.join(languages)}: {row.get('language') or 'not known'}"]


def _domains(domains: list[str], row: Row) -> list[str]:
    return [f"address is on none of {len(domains)} domains"]


_SENTENCES: dict[str, Callable[[Any, Row], list[str]]] = {
    "words": _words,
    "languages": _languages,
    "exclude_domains": _domains,
}
"""Field of a config that is no limit → what it says in words."""
