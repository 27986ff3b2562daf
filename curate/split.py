"""Decides where each image of a project goes: it is trained on, held out, or left out."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

import numpy as np
import pyarrow as pa

from dreamloom.base.tables.held_out import HeldOutImage
from dreamloom.caption.nouns import find_all_nouns
from dreamloom.curate.balance import exact, solve_multiplies
from dreamloom.curate.concepts import choose_unrehearsed, follow
from dreamloom.curate.config import BalanceConfig
from dreamloom.curate.held_out import Candidate, at_most, count_held_out, select_held_out
from dreamloom.curate.manifest import DROPPED, HELD_OUT, NOT_DRAWN, NOT_REHEARSED, TRAIN
from dreamloom.curate.rehearsal import Shown, warnings
from dreamloom.curate.source import Role, Source

_log = logging.getLogger(__name__)


@dataclass
class Split:
    """Where each row goes, and how often its folder is shown in an epoch."""

    split: list[str]
    """train, heldout or dropped."""
    reasons: list[str | None]
    """Why balance drops a row; None: it does not."""
    concepts: list[frozenset[str]]
    """What a row shows, of the concepts that are followed."""
    kinds: dict[int, Role]
    """Held-out row → the kind of held-out images that it is one of."""
    copies: Sequence[int | None]
    ratings: Sequence[Fraction]
    """How often a row is shown for each time that another of its source is."""
    multiplies: dict[str, Fraction] = field(default_factory=dict)
    """Source → multiply, of the sources that an epoch draws from."""

    def multiply(self, row: int, source: str) -> Fraction:
        """Returns how often an epoch shows a row of a source that it draws from."""
        return self.multiplies[source] * self.ratings[row]

    def describe(self, row: int) -> HeldOutImage:
        """Returns what evaluate should know of a held-out row."""
        group = self.copies[row]
        return HeldOutImage(tuple(sorted(self.concepts[row])), None if group is None else str(group))


def split_images(
    rows: pa.Table, ordered: Sequence[Source], config: BalanceConfig, copies: Sequence[int | None]
) -> Split:
    """Places every row of the history (dreamloom.curate.history).

    Args:
        rows: all images, also those that earlier stages dropped.
        ordered: the sources.
        config: how many are held out, and in which ratio ground truth is shown.
        copies: the same number for images that look the same; None: it is one of a kind.
    """
    of_role = _rows_of_roles(rows, ordered)
    concepts = _follow(rows, of_role, config)
    unrehearsed = _unrehearsed(rows, of_role, concepts, config)
    pools = {
        Role.TRAINING: of_role[Role.TRAINING],
        Role.GROUND_TRUTH: [row for row in of_role[Role.GROUND_TRUTH] if row not in unrehearsed],
        Role.WITNESS: [*of_role[Role.WITNESS], *sorted(unrehearsed)],
    }
    kinds = _select(rows, pools, concepts, ordered, config, copies)
    reasons: list[str | None] = [None] * len(rows)
    for row in set(pools[Role.WITNESS]) - kinds.keys():
        reasons[row] = NOT_REHEARSED
    rated = cache(exact)  # the same object for the same rating
    ratings = [rated(1 if rating is None else rating) for rating in rows["rating"].to_pylist()]
    placed = Split([DROPPED] * len(rows), reasons, concepts, kinds, copies, ratings)
    _draw(placed, rows, ordered, config)
    return placed


def _rows_of_roles(rows: pa.Table, ordered: Sequence[Source]) -> dict[Role, list[int]]:
    """Returns the rows of each role, in order, that no earlier stage dropped."""
    import pyarrow.compute as pc

    names, roles = ([str(value) for value in each] for each in zip(*((s.name, s.role) for s in ordered), strict=True))
    of_source = pa.array(roles).take(pc.index_in(rows["source"].combine_chunks(), pa.array(names)))
    role = pc.coalesce(rows["decided_role"].combine_chunks(), of_source)
    is_free = rows["stage"].combine_chunks().is_null()
    return {each: np.flatnonzero(pc.and_(is_free, pc.equal(role, str(each))).to_numpy(False)).tolist() for each in Role}


def _follow(rows: pa.Table, of_role: Mapping[Role, Sequence[int]], config: BalanceConfig) -> list[frozenset[str]]:
    concepts: list[frozenset[str]] = [frozenset()] * len(rows)
    described = rows.select(["caption", "labels"])
    for members in of_role.values():
        captions, labels = (column.to_pylist() for column in described.take(pa.array(members, pa.int64())).columns)
        for row, found in zip(members, follow([text or "" for text in captions], labels, config.concepts), strict=True):
            concepts[row] = found
    return concepts


def _unrehearsed(
    rows: pa.Table,
    of_role: Mapping[Role, Sequence[int]],
    concepts: Sequence[frozenset[str]],
    config: BalanceConfig,
) -> set[int]:
    """Returns the rows of ground truth that are not trained on: those of some concepts that training has no need of.

    Where nothing is to be measured by, there are none.
    """
    if not config.held_out or not config.held_out_max_witness:
        return set()
    captions = rows["caption"].take(pa.array(of_role[Role.TRAINING], pa.int64())).to_pylist()
    taught = find_all_nouns([caption or "" for caption in captions])
    needed = frozenset().union(*taught) | {name.lower() for name in config.concepts}
    ground_truth = of_role[Role.GROUND_TRUTH]
    chosen = choose_unrehearsed([concepts[row] for row in ground_truth], config.unrehearsed, needed, config.seed)
    found = {row for row in ground_truth if concepts[row] & chosen}
    if chosen:
        text = "not rehearsed, to measure what becomes of it: %s (%d images); unrehearsed: 0 rehearses all"
        _log.info(text, ", ".join(sorted(chosen)), len(found))
    return found


def _select(
    rows: pa.Table,
    pools: Mapping[Role, Sequence[int]],
    concepts: Sequence[frozenset[str]],
    ordered: Sequence[Source],
    config: BalanceConfig,
    copies: Sequence[int | None],
) -> dict[int, Role]:
    """Returns the held-out rows, each with its kind, of those that may be held out of each role."""
    keys, names = rows["key"].to_pylist(), rows["source"].to_pylist()
    sizes = Counter(group for group in copies if group is not None)
    kinds: dict[int, Role] = {}
    for role, pool in pools.items():
        of_source = Counter(names[row] for row in pool)
        counts = {source.name: of_source[source.name] for source in ordered if of_source[source.name]}
        if role is Role.WITNESS:
            counts = at_most(counts, config.held_out_max_witness)
        else:
            training = role is Role.TRAINING
            maximum = config.held_out_max_training if training else config.held_out_max_ground_truth
            counts = count_held_out(counts, config.held_out, maximum)
        if any(counts.values()):
            candidates = [Candidate(row, keys[row], names[row], concepts[row], copies[row]) for row in pool]
            kinds |= dict.fromkeys(select_held_out(candidates, counts, config.seed, sizes), role)
    return kinds


def _draw(placed: Split, rows: pa.Table, ordered: Sequence[Source], config: BalanceConfig) -> None:
    """Decides how often each source is shown, and fills in where the rows go."""
    names = rows["source"].to_pylist()
    is_free = rows["stage"].is_null().to_numpy() & np.array([reason is None for reason in placed.reasons])
    is_free[list(placed.kinds)] = False
    free = (
        rows.select(["source", "rating"])
        .filter(pa.array(is_free))
        .group_by(["source", "rating"])
        .aggregate([([], "count_all")])
    )
    remaining = dict.fromkeys((source.name for source in ordered), Fraction(0))
    counts = Counter[str]()
    for name, rating, count in zip(
        *(free[column].to_pylist() for column in ("source", "rating", "count_all")), strict=True
    ):
        remaining[name] += (1 if rating is None else exact(rating)) * count
        counts[name] += count
    multiplies = solve_multiplies(
        {s.name: (remaining[s.name], s.multiply) for s in ordered if s.role is Role.TRAINING},
        {s.name: (remaining[s.name], s.share) for s in ordered if s.role is Role.GROUND_TRUTH},
        config.ratio_of_folder,
    )
    placed.multiplies |= {name: m for name, m in multiplies.items() if remaining[name] * m > 0}
    for row in placed.kinds:
        placed.split[row] = HELD_OUT
    for row in np.flatnonzero(is_free).tolist():
        if names[row] in placed.multiplies:
            placed.split[row] = TRAIN
        else:
            placed.reasons[row] = NOT_DRAWN
    _tell(placed, rows, ordered, remaining, counts)


def _tell(
    placed: Split,
    rows: pa.Table,
    ordered: Sequence[Source],
    weights: Mapping[str, Fraction],
    remaining: Mapping[str, int],
) -> None:
    """Logs how often each source is shown, and warns of ground truth that is too small or too narrow for it."""
    import pyarrow.compute as pc

    held_out = Counter(rows["source"].take(pa.array(list(placed.kinds), pa.int64())).to_pylist())
    trained = rows.select(["source", "caption"]).filter(pa.array(np.array(placed.split) == TRAIN))
    shown = []
    for source in ordered:
        name, multiply = source.name, placed.multiplies.get(source.name, Fraction(0))
        per_epoch = weights[name] * multiply
        text = f"{remaining[name]:,} images × {float(multiply):.6g} = {float(per_epoch):.6g} an epoch"
        _log.info("%s (%s): %s, %d held out", name, source.role, text, held_out[name])
        if multiply:
            captions = Counter(trained["caption"].filter(pc.equal(trained["source"], name)).to_pylist())
            shown.append(Shown(name, source.role is Role.TRAINING, remaining[name], per_epoch, captions))
    for warning in warnings(shown):
        _log.warning(warning)
