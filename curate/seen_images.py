"""Remembers what choose saw of each image, so that it finds out about which images it has to decide again.

All rules but two look at an image alone. Of two images, one drops the other only where a chain of equal bytes, and of
hashes that are near, connects them (dreamloom.curate.rules.dedupe). So what changed decides only about itself, and what
such chains lead to from it, and from what was there before.

    <cache>/choices/<name>.npz     what choose saw of each image; the name is a hash of the choices that it then made

The files may be deleted at any time: then all is chosen anew. What one says is only believed beside these very choices.
"""

import contextlib
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from dreamloom.base.files.atomic import commit
from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.base.stage import recipe
from dreamloom.curate import deciding
from dreamloom.curate.config import ChooseConfig, NearDuplicates
from dreamloom.curate.deciding import PartName
from dreamloom.curate.rules.duplicates import BITS
from dreamloom.curate.rules.rule import Images
from dreamloom.curate.source import Source
from dreamloom.scrape.collection import Table
from dreamloom.scrape.collection.decisions import What, digest

VERSION = 1
_LOOKED_UP = 2 * 10**9
"""Pairs of hashes that are compared before all is chosen anew instead: four seconds."""
_UNSEEN = ("source", "image")
"""Columns that say where an image lies, on which no choice hangs."""


class SeenPart(NamedTuple):
    """A part of all sources, and the rows of it that were seen."""

    name: PartName
    stamps: str
    first: int
    rows: int


@dataclass(frozen=True)
class Seen:
    """What choose saw of each image, part by part."""

    settings: str
    """All else that choices depend on, as JSON."""
    parts: list[SeenPart]
    rows: NDArray[np.uint64]
    """Hash of all that rules look at, hash of the bytes, pHash, and whether it has either: bits 1 and 2 [n, 4]."""

    def of(self, part: SeenPart) -> NDArray[np.uint64]:
        """Returns the rows of a part."""
        return self.rows[part.first : part.first + part.rows]

    def of_all(self, names: Container[PartName]) -> NDArray[np.uint64]:
        """Returns the rows of some parts, in order."""
        return np.concatenate([self.rows[:0], *(self.of(part) for part in self.parts if part.name in names)])


def see(images: Images, stamps: Mapping[PartName, str], settings: str, before: Seen | None = None) -> Seen:
    """Notes what choose sees of the images that it decides about.

    Args:
        images: all; or those of the parts that changed since an earlier look.
        stamps: of all parts; see `stamps_of`.
        settings: see `settings_of`.
        before: that look.
    """
    own = {(part.source, part.name): images.table.slice(part.first, part.rows) for part in images.parts}
    earlier = {part.name: part for part in before.parts} if before is not None else {}
    parts, rows, first = list[SeenPart](), [np.empty((0, 4), dtype=np.uint64)], 0
    for name, stamp in stamps.items():
        if name in own:
            rows.append(_look_at_rows(own[name], images.sources[name[0]].name))
        else:
            assert before is not None
            rows.append(before.of(earlier[name]))
        parts.append(SeenPart(name, stamp, first, len(rows[-1])))
        first += len(rows[-1])
    return Seen(settings, parts, np.concatenate(rows))


def stamps_of(sources: Sequence[Source]) -> dict[PartName, str]:
    """Returns what the rows of each part are made of: the stamps of its records and scores."""
    found: dict[PartName, str] = {}
    for number, source in enumerate(sources):
        scored = set(source.collection.parts(Table.SCORES))
        for part in source.collection.parts(Table.RECORDS):
            tables = (Table.RECORDS, Table.SCORES) if part in scored else (Table.RECORDS,)
            found[number, part] = " ".join(source.collection.stamp(table, part) for table in tables)
    return found


def settings_of(sources: Sequence[Source], config: ChooseConfig) -> str:
    """Returns all that choices depend on beside the rows of parts, as JSON."""
    each = []
    for source in sources:
        collection = source.collection
        models = {json.dumps(collection.models(Table.SCORES, part)) for part in collection.parts(Table.SCORES)}
        decided = digest(collection.decisions().standing(What.KEEP, What.DROP).values())
        each.append([source.name, str(source.role), decided, sorted(models)])
    return json.dumps([VERSION, deciding.VERSION, config.model_dump(mode="json"), each])


def find_affected(before: Seen, now: Seen, changed: set[PartName], config: ChooseConfig) -> NDArray[np.int64] | None:
    """Returns the rows of `now` that may be chosen otherwise than before, under the same settings; None: all may.

    Args:
        before: an earlier look.
        now: the one after it.
        changed: the parts that are not the same.
        config: the config of choose.
    """
    if config.max_ground_truth is not None:
        return None
    if config.near_duplicates not in (NearDuplicates.OFF, NearDuplicates.STRICT):
        return None
    old, new = before.of_all(changed), now.of_all(changed)
    if len(np.unique(new[:, 0])) < len(new) or len(np.unique(old[:, 0])) < len(old):  # equal in all: rare
        return None
    stays = np.intersect1d(old[:, 0], new[:, 0])
    if not np.array_equal(_sequence(before, changed, stays), _sequence(now, changed, stays)):
        return None
    is_new = np.concatenate([np.full(part.rows, part.name in changed) for part in now.parts] or [np.empty(0, bool)])
    is_new &= ~np.isin(now.rows[:, 0], stays)
    gone = old[~np.isin(old[:, 0], stays)]
    return _follow_chains(now.rows, is_new, gone, config)


def _sequence(seen: Seen, changed: set[PartName], stays: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the rows that stay, in order, and between them the parts that did not change."""
    pieces = [np.empty(0, dtype=np.uint64)]
    for part in seen.parts:
        signs, name = seen.of(part)[:, 0], np.array([_hash(str(part.name))], dtype=np.uint64)
        pieces.append(signs[np.isin(signs, stays)] if part.name in changed else name)
    return np.concatenate(pieces)


def _follow_chains(
    rows: NDArray[np.uint64], is_new: NDArray[np.bool_], gone: NDArray[np.uint64], config: ChooseConfig
) -> NDArray[np.int64] | None:
    """Returns the new rows, and all that chains lead to from them and from those that are gone; None: it takes long."""
    bits = BITS.get(config.near_duplicates, -1)
    reached, links = is_new.copy(), np.concatenate([rows[is_new], gone])
    compared = 0
    while len(links):
        found = _has(rows, _BYTES) & np.isin(rows[:, 1], links[_has(links, _BYTES), 1])
        hashes = np.unique(links[_has(links, _HASH), 2]) if bits >= 0 else links[:0, 2]
        compared += len(hashes) * len(rows)
        if compared > _LOOKED_UP:
            return None
        for value in hashes:
            found |= _has(rows, _HASH) & (np.bitwise_count(rows[:, 2] ^ value) <= bits)
        found &= ~reached
        reached |= found
        links = rows[found]
    return np.flatnonzero(reached)


_BYTES, _HASH = np.uint64(1), np.uint64(2)


def _has(rows: NDArray[np.uint64], what: np.uint64) -> NDArray[np.bool_]:
    return np.asarray((rows[:, 3] & what) != 0)


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8"))


def _look_at_rows(table: pa.Table, source: str) -> NDArray[np.uint64]:
    """Returns the rows of `Seen` for the images of a part."""
    import pyarrow.compute as pc

    columns = [table[name] for name in table.column_names if name not in _UNSEEN]
    texts = [pc.fill_null(column.cast(pa.large_string()), "\0") for column in columns]
    own, between = (pa.scalar(text, pa.large_string()) for text in (source, "\x1f"))
    signs = pc.binary_join_element_wise(own, *texts, between).to_pylist()
    digests = table["sha256"].to_pylist()
    hashed = np.array([_hash(sign) for sign in signs], dtype=np.uint64)
    of_bytes = np.array([_hash(each or "") for each in digests], dtype=np.uint64)
    phashes = table["phash"].cast(pa.int64())
    has = table["sha256"].is_valid().to_numpy() * _BYTES + phashes.is_valid().to_numpy() * _HASH
    values = pc.fill_null(phashes, 0).to_numpy().view(np.uint64)
    return np.stack([hashed, of_bytes, values, has.astype(np.uint64)], axis=1)


# Between runs


def seen_file(sources: Sequence[Source]) -> Path | None:
    """Returns where it stands what was seen when the choices were made that are there; None: some are missing."""
    place = place_of(sources)
    return None if place is None else cache_folder() / "choices" / f"{place}.npz"


def read_seen(file: Path) -> Seen | None:
    """Reads what was seen; None: it is not known."""
    with contextlib.suppress(OSError, ValueError, KeyError, BadZipFile), np.load(file, allow_pickle=False) as stored:
        said: dict[str, Any] = json.loads(bytes(stored["said"]))
        parts = [SeenPart((number, name), *rest) for number, name, *rest in said["parts"]]
        return Seen(said["settings"], parts, stored["rows"])
    return None


def write_seen(file: Path, seen: Seen) -> None:
    """Remembers what was seen, if that is possible."""
    said = {"settings": seen.settings, "parts": [[*part.name, *part[1:]] for part in seen.parts]}
    content = BytesIO()
    np.savez(content, rows=seen.rows, said=np.frombuffer(json.dumps(said).encode(), dtype=np.uint8))
    with contextlib.suppress(OSError), commit(file) as temporary:
        temporary.write_bytes(content.getbuffer())


def place_of(sources: Sequence[Source]) -> str | None:
    """Returns a hash of the choices that are there; None: some are missing."""
    stamps = list[str]()
    for source in sources:
        parts = source.collection.parts(Table.CHOICES)
        if parts != source.collection.parts(Table.RECORDS):
            return None
        stamps += [source.name, *(source.collection.stamp(Table.CHOICES, part) for part in parts)]
    return recipe("what choose saw", VERSION, {}, stamps)
