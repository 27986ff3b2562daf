"""The choose stage: decides which images go on, and names for each other image the rule that it breaks.

The user's own images are taken as they are: thresholds and licences apply to ground truth. Duplicates are dropped from
both, and training images come before ground truth, so that no image is both taught and held up as known before.

Where few images changed since it last ran, it decides about these alone (dreamloom.curate.choose_again).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe, recipe_values
from dreamloom.curate import deciding
from dreamloom.curate.choose_again import choose_again, is_noted, note
from dreamloom.curate.config import RESOLUTIONS, ChooseConfig
from dreamloom.curate.deciding import decide, read_images
from dreamloom.curate.rules import RULES
from dreamloom.curate.scores import SCORES
from dreamloom.curate.seen_images import Seen, read_seen, see, seen_file, settings_of, stamps_of, write_seen
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Table, open_collection
from dreamloom.scrape.collection.decisions import What, digest
from dreamloom.scrape.collection.parts import make_parts, stale_parts

_MANY = 4
"""Parts of all sources from which on it is remembered what was seen: with less, most of them would change anyway."""


def choose(sources: Sequence[Source], config: ChooseConfig, progress: Progress = silent) -> Summary:
    """Writes the choices of every source: one row per score, or per record where nothing was scored.

    Applies the rules in the order of `RULES`. Of duplicates one stays: of training before ground truth, then as
    dreamloom.curate.rules.priority has it. An image without the value that a threshold asks for (such as text to be
    similar to) passes. What a decision keeps, no rule drops.

    Raises:
        UserError: a threshold needs scores that are missing, or sources were scored by different models.
    """
    ordered = sort_by_priority(sources)
    recipes = _recipes(ordered, config)
    for source in ordered:
        _check_scores(source, config_for(source.role, config))
    if _is_current(ordered, recipes):
        return sum((_existing(source, recipes[source.name]) for source in ordered), start=Summary())
    file = seen_file(ordered)
    before = None if file is None else read_seen(file)
    again = None if before is None else choose_again(ordered, config, before)
    if again is None:
        images = read_images(ordered)
        tables, seen = decide(images, config), None
        if len(images.parts) >= _MANY:
            seen = see(images, stamps_of(ordered), settings_of(ordered, config))
    else:
        tables, seen = again

    total = Summary()
    for number, source in enumerate(ordered):

        def write_part(part: str, progress: Progress, number: int = number) -> tuple[pa.Table, Summary]:
            return tables[number, part]()

        wanted, source_config = recipes[source.name], config_for(source.role, config)
        source_config = source_config.model_copy(update={"resolution": config.resolution_of(source.name)})
        parts = None if again is None else [part for part in wanted if (number, part) in tables]
        total += make_parts(source.collection, Table.CHOICES, source_config, wanted, write_part, parts=parts)
        total += _existing(source, [part for part in wanted if (number, part) not in tables])
        progress(number + 1, len(ordered), f"{total.kept} kept")
    if again is not None:
        note(ordered, _all(recipes))
    _remember(ordered, seen, file)
    return total


def is_current(sources: Sequence[Source], config: ChooseConfig) -> bool:
    """Whether the choices of all sources exist, made by this config from the present records and scores."""
    ordered = sort_by_priority(sources)
    return _is_current(ordered, _recipes(ordered, config))


def _is_current(ordered: Sequence[Source], recipes: Mapping[str, Mapping[str, str]]) -> bool:
    if not any(stale_parts(s.collection, Table.CHOICES, recipes[s.name]) for s in ordered):
        return True
    return is_noted(ordered, _all(recipes))


def _all(recipes: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [made for of_source in recipes.values() for made in of_source.values()]


def _existing(source: Source, parts: Iterable[str]) -> Summary:
    summaries = (source.collection.summary(Table.CHOICES, part).as_existing() for part in parts)
    return sum(summaries, start=Summary())


def _remember(ordered: Sequence[Source], seen: Seen | None, former: Path | None) -> None:
    """Remembers what was seen when the present choices were made, in place of what is known of the former."""
    file = seen_file(ordered)
    if file is not None and seen is not None:
        write_seen(file, seen)
    if former is not None and former != file:
        former.unlink(missing_ok=True)


def sort_by_priority(sources: Sequence[Source]) -> list[Source]:
    """Returns training sources first, then ground truth, each in the given order.

    Raises:
        UserError: there is none, two have the same name, or one has no records.
    """
    if not sources:
        raise UserError("There is no collection to choose from; name one that is to be learned.")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two sources are called {name}; give each collection a name of its own.")
    for source in sources:
        open_collection(source.collection, needs=Table.RECORDS)
    return sorted(sources, key=lambda source: list(Role).index(source.role))


def config_for(role: Role, config: ChooseConfig) -> ChooseConfig:
    """Returns the config that applies to sources of a role: for training, rules for ground truth are off."""
    if role is not Role.TRAINING:
        return config
    return config.model_copy(update={r.field: r.off for r in RULES if r.field is not None and r.ground_truth_only})


def _recipes(ordered: Sequence[Source], config: ChooseConfig) -> dict[str, dict[str, str]]:
    """Source → part → recipe. A source depends on all of its role, and on those whose role comes before it."""
    recipes: dict[str, dict[str, str]] = {}
    upstream = [str(recipe_values(config, RESOLUTIONS.name))] if config.folder_resolutions else []
    for role in Role:
        of_role = [source for source in ordered if source.role is role]
        for source in of_role:
            stamps = source.collection.stamps(Table.RECORDS) + source.collection.stamps(Table.SCORES)
            decided = digest(source.collection.decisions().standing(What.KEEP, What.DROP).values())
            upstream += [source.name, source.role, *stamps, *filter(None, [decided])]
        made = recipe("choose", deciding.VERSION, config_for(role, config), upstream)
        recipes |= {s.name: dict.fromkeys(s.collection.parts(Table.RECORDS), made) for s in of_role}
    return recipes


def _check_scores(source: Source, config: ChooseConfig) -> None:
    """Raises UserError where a rule needs a score that the source doesn't have."""
    rules = [rule for rule in RULES if rule.is_on(config.model_dump())]
    scored = source.collection.parts(Table.SCORES)
    for rule in rules:
        if rule.score is not None and not scored:
            raise UserError(
                f"{rule.field} needs scores, and {source.name} has none; run score, or leave {rule.field} out."
            )
    for rule in rules:
        for model in (score.model for score in SCORES if score.name == rule.score):
            if model is not None and model.role not in source.collection.models(Table.SCORES, scored[0]):
                raise UserError(
                    f"{rule.field} needs {rule.score} scores, and {source.name} was scored without a {model.role}; "
                    f"set score.{model.field}, or leave {rule.field} out."
                )
