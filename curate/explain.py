"""The rules of a stage's config in words, each with what an image had to show for it."""

from collections.abc import Callable, Mapping
from typing import Any


def rules(config: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """The rules that a stage held a row to: "side ≥ 512: 640 × 480". What the config leaves open is left out.

    Args:
        config: a stage's config, as its part's metadata has it. `min_x` and `max_x` are limits of x.
        row: the row as the stage saw it; a limit of something that is not in it is left out.
    """
    seen = _seen(row)
    found = []
    for name, limit in config.items():
        if limit is None or limit == [] or limit == "":
            continue
        bound, _, what = name.partition("_")
        if bound in ("min", "max") and what in seen:
            found.append(f"{what} {'≥' if bound == 'min' else '≤'} {_number(limit)}: {seen[what]}")
        elif name in _WORDS:
            found += _WORDS[name](limit, config, row)
    return found


def _seen(row: Mapping[str, Any]) -> dict[str, str]:
    """What limits are set on: the image as it came, where that is known, else as it is."""
    width, height = (row.get(f"original_{side}") or row.get(side) for side in ("width", "height"))
    seen = {}
    if width and height:
        seen["side"] = f"{width} × {height}"
        seen["pixels"] = f"{width * height}"
        seen["aspect"] = f"{max(width, height) / min(width, height):.2f}"
    for name in ("aesthetic", "similarity", "punsafe", "pwatermark", "bytes"):
        if name in row:
            seen[name] = "not known" if row[name] is None else _number(row[name])
    return seen


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _words(words: Mapping[str, list[str]], config: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    how = {"any": "says one of", "all": "says all of", "none": "says none of"}
    return [f"text {how[kind]}: {', '.join(listed)}" for kind, listed in words.items() if listed]


def _languages(languages: list[str], config: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    return [f"language is one of {', '.join(languages)}: {row.get('language') or 'not known'}"]


def _domains(domains: list[str], config: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    return [f"address is on none of {len(domains)} domains"]


def _licences(words: list[str], config: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    return [f"licence is none of: {', '.join(words)}"]


def _copies(bits: int, config: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    if row.get("phash") is None:
        return ["no copy of an earlier image: by bytes"]
    cosine = config.get("near_duplicate_cosine")
    return [f"no copy of an earlier image: by bytes, or pHash ≤ {bits} bits with CLIP cosine ≥ {cosine:g}"]


_WORDS: dict[str, Callable[[Any, Mapping[str, Any], Mapping[str, Any]], list[str]]] = {
    "words": _words,
    "languages": _languages,
    "exclude_domains": _domains,
    "exclude_licences": _licences,
    "near_duplicate_bits": _copies,
}
