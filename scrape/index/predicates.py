"""The rules of `filter` as SQL, in the order of its funnel: reason → what is true where a row passes."""

import re

from dreamloom.base.errors import UserError
from dreamloom.scrape.index.columns import ALIASES, Column, Index
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.words import Words, words_predicate


def numeric_predicates(config: FilterConfig, index: Index) -> dict[str, str]:
    """Returns the rules on sizes and scores.

    Raises:
        UserError: the index has no column for a limit that is set.
    """
    predicates: dict[str, str] = {}
    if config.take == "best" and "aesthetic" not in index.columns:
        raise UserError(f"{index.files[0]} has no aesthetic scores, which `take: best` sorts by; take first or sample.")
    if sides := _columns_for(config, index, "min_side", "width", "height"):
        predicates["size"] = " AND ".join(side.comparison_sql(">=", config.min_side or 0) for side in sides)
    if sides := _columns_for(config, index, "max_aspect", "width", "height"):
        w, h = (side.number_sql for side in sides)
        limit = f"{config.max_aspect!r}::DOUBLE"  # a bare 3.0 is a DECIMAL, which is slow
        predicates["aspect"] = f"{w} > 0 AND {h} > 0 AND {w} <= {limit} * {h} AND {h} <= {limit} * {w}"
    for field, operator in (
        ("min_aesthetic", ">="),
        ("min_similarity", ">="),
        ("max_punsafe", "<"),
        ("max_pwatermark", "<"),
    ):
        reason = field[len("min_") :]
        for column in _columns_for(config, index, field, reason):
            passes = column.comparison_sql(operator, getattr(config, field))
            keep_unscored = operator == "<" and config.unscored == "keep"
            predicates[reason] = f"{passes} OR {column.number_sql} IS NULL" if keep_unscored else passes
    return predicates


def text_predicates(config: FilterConfig, index: Index) -> dict[str, str]:
    """Returns the rules on URLs and captions, which read far more bytes.

    Raises:
        UserError: the index has no column for a rule that is set.
    """
    url = index.columns["url"].text_sql
    predicates = {"no_url": f"trim({url}) <> ''"}
    for field, reason in (("languages", "language"), ("licences", "licence")):
        for column in _columns_for(config, index, field, reason):
            wanted = ", ".join(sql_string(value.lower()) for value in getattr(config, field))
            predicates[reason] = f"lower({column.text_sql}) IN ({wanted})"
    if config.domains:
        predicates["other_domain"] = f"regexp_matches({url}, {_host_pattern(config.domains)})"
    if config.exclude_domains:
        predicates["domain"] = f"NOT regexp_matches({url}, {_host_pattern(config.exclude_domains)})"
    for text in _columns_for(config, index, "words", "text"):
        predicates["words"] = words_predicate(config.words, text.caption_sql) or "true"
    return predicates


def check_aesthetic_scales(config: FilterConfig, indexes: list[Index]) -> None:
    """Checks that aesthetic scores are compared on one scale.

    Raises:
        UserError: the indexes have several scales, or another one than `aesthetic_scale` names.
    """
    if config.min_aesthetic is None and config.take != "best":
        return
    scales = {index.columns["aesthetic"].aesthetic_scale: index for index in indexes if "aesthetic" in index.columns}
    if config.aesthetic_scale == "v1" and "v2" in scales:
        raise UserError(
            f"{scales['v2'].files[0]} has aesthetic scores of V2 ({scales['v2'].columns['aesthetic'].name}), and "
            "`aesthetic_scale` is v1; set it to v2 and give a limit on that scale, or take another index."
        )
    if config.aesthetic_scale is None and len(scales) > 1:
        raise UserError(
            f"{scales[None].files[0]} and {scales['v2'].files[0]} may have aesthetic scores of two scales, V1 and V2, "
            "which are not comparable; set `aesthetic_scale` if they are on one."
        )


def sql_string(text: str) -> str:
    """Quotes a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def _host_pattern(domains: list[str]) -> str:
    """Returns SQL of a regular expression for URLs on these domains and their subdomains."""
    names = "|".join(re.escape(domain.strip(".")) for domain in domains)
    return sql_string(rf"(?i)^\s*[a-z]+:[/\\]*(?:[^/\\?#]*@)?(?:[^/\\?#:@]*\.)?(?:{names})\.?(?:[:/\\?#\s]|$)")


def _columns_for(config: FilterConfig, index: Index, field: str, *names: str) -> list[Column]:
    """Returns the columns that a field of the config needs; none where the field is unset, or may do without them.

    Raises:
        UserError: the field is set and the index lacks a column for it.
    """
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
