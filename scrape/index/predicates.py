"""The rules of a filter as SQL, in the order of its funnel: reason → what is true where a row passes."""

import re

from dreamloom.base.errors import UserError
from dreamloom.scrape.index.columns import ALIASES, Column, Index
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.words import Words, words_predicate


def numeric_predicates(config: FilterConfig, index: Index) -> dict[str, str]:
    """The rules on sizes and scores.

    Raises:
        UserError: the index has no column for a limit that was asked for.
    """
    predicates: dict[str, str] = {}
    if config.take == "best" and "aesthetic" not in index.columns:
        raise UserError(
            f"{index.files[0]} has no aesthetic scores, by which `take: best` orders; take first or sample."
        )
    if sides := _asked(config, index, "min_side", "width", "height"):
        predicates["size"] = " AND ".join(side.compared(">=", config.min_side or 0) for side in sides)
    if sides := _asked(config, index, "max_aspect", "width", "height"):
        w, h = (side.number for side in sides)
        most = f"{config.max_aspect!r}::DOUBLE"  # a bare 3.0 is a DECIMAL, which is slow
        predicates["aspect"] = f"{w} > 0 AND {h} > 0 AND {w} <= {most} * {h} AND {h} <= {most} * {w}"
    for field, operator in (
        ("min_aesthetic", ">="),
        ("min_similarity", ">="),
        ("max_punsafe", "<"),
        ("max_pwatermark", "<"),
    ):
        reason = field[len("min_") :]
        for column in _asked(config, index, field, reason):
            passes = column.compared(operator, getattr(config, field))
            keep = operator == "<" and config.unscored == "keep"
            predicates[reason] = f"{passes} OR {column.number} IS NULL" if keep else passes
    return predicates


def text_predicates(config: FilterConfig, index: Index) -> dict[str, str]:
    """The rules on addresses and captions, which read far more bytes.

    Raises:
        UserError: the index has no column for what was asked for.
    """
    url = index.columns["url"].text
    predicates = {"no_url": f"trim({url}) <> ''"}
    for field, reason in (("languages", "language"), ("licences", "licence")):
        for column in _asked(config, index, field, reason):
            wanted = ", ".join(sql_string(value.lower()) for value in getattr(config, field))
            predicates[reason] = f"lower({column.text}) IN ({wanted})"
    if config.domains:
        predicates["other_domain"] = f"regexp_matches({url}, {_hosts(config.domains)})"
    if config.exclude_domains:
        predicates["domain"] = f"NOT regexp_matches({url}, {_hosts(config.exclude_domains)})"
    for text in _asked(config, index, "words", "text"):
        predicates["words"] = words_predicate(config.words, text.text) or "true"
    return predicates


def check_aesthetic_scales(config: FilterConfig, indexes: list[Index]) -> None:
    """Sees to it that aesthetic scores are compared on one scale.

    Raises:
        UserError: they are of several, or of another than `aesthetic_scale` says.
    """
    if config.min_aesthetic is None and config.take != "best":
        return
    scales = {index.columns["aesthetic"].scale: index for index in indexes if "aesthetic" in index.columns}
    if config.aesthetic_scale == "v1" and "v2" in scales:
        raise UserError(
            f"{scales['v2'].files[0]} has aesthetic scores of V2 ({scales['v2'].columns['aesthetic'].name}), and "
            "`aesthetic_scale` is v1; say v2 and a limit on that scale, or take another index."
        )
    if config.aesthetic_scale is None and len(scales) > 1:
        raise UserError(
            f"{scales[None].files[0]} and {scales['v2'].files[0]} may have aesthetic scores of two scales, V1 and V2, "
            "which are not comparable; say `aesthetic_scale` if they are of one."
        )


def sql_string(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def _hosts(domains: list[str]) -> str:
    """SQL of the pattern of addresses on these domains and all below them."""
    names = "|".join(re.escape(domain.strip(".")) for domain in domains)
    return sql_string(rf"(?i)^\s*[a-z]+:/*(?:[^/?#]*@)?(?:[^/?#:@]*\.)?(?:{names})\.?(?:[:/?#\s]|$)")


def _asked(config: FilterConfig, index: Index, field: str, *names: str) -> list[Column]:
    """The columns that a field of the config asks of, or none where it asks nothing, or may do without them."""
    value, default = getattr(config, field), type(config).model_fields[field].default
    if value is None or value == [] or value == Words():
        return []
    missing = [name for name in names if name not in index.columns]
    if missing and value != default:
        raise UserError(
            f"{index.files[0]} has no column for {missing[0]} (such as {ALIASES[missing[0]][0]}), which `{field}` "
            f"needs; leave `{field}` out, or take an index that has it."
        )
    return [] if missing else [index.columns[name] for name in names]
