"""Names images by their captions, all at once, as `dreamloom.caption.filename.NameWriter` does one by one.

Names depend on each other only where captions give the same stem. So stems are counted in columns, and only what a name
may not hold whole, and what shares a stem with that, goes through a NameWriter.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.caption.filename import MAX_BYTES, PLAIN, RESERVED, SUFFIX_BYTES, NameWriter, cut, fold_stem, legible

_EXTENSION_BYTES = 16
"""An image with a longer extension is named by itself."""


class Names(NamedTuple):
    """The names of images."""

    names: pa.Array
    """Of pyarrow's large_string, without folder."""
    needs_sidecar: NDArray[np.bool_]
    """Whether the name can't hold the caption."""


def name_images(folders: NDArray[np.int64], captions: pa.Array, extensions: pa.Array) -> Names:
    """Names images.

    Args:
        folders: number of the folder that each lies in; a name is unused in its folder.
        captions: of pyarrow's large_string, without nulls.
        extensions: the same, with their full stop.
    """
    import pyarrow.compute as pc

    coded = captions.dictionary_encode()
    of_row, stems, folded = coded.indices.to_numpy(), *_legible_stems(coded.dictionary)
    fold = folded.dictionary_encode()
    group = folders * max(1, len(fold.dictionary)) + fold.indices.to_numpy()[of_row]
    count = _count_before(group) + 1
    is_bare = (count == 1) & (_lengths(stems)[of_row] > 0)
    is_bare &= ~pc.is_in(folded, pa.array(sorted(RESERVED), pa.large_string())).to_numpy(False)[of_row]
    suffixes = _join("_(", pa.array(count).cast(pa.large_string()), ")")
    suffixes = pc.if_else(pa.array(is_bare), pa.scalar("", pa.large_string()), suffixes)
    named = Names(_join(stems.take(coded.indices), suffixes, extensions), _differ(stems, coded.dictionary)[of_row])
    is_long = (_lengths(stems) > MAX_BYTES - SUFFIX_BYTES - _EXTENSION_BYTES)[of_row]
    is_long |= _lengths(extensions) > _EXTENSION_BYTES
    if not is_long.any():
        return named
    by_itself = _sharing_stems(np.flatnonzero(is_long), folders, stems.take(coded.indices), extensions, fold, group)
    return _name_one_by_one(named, by_itself, folders, captions, extensions)


def _legible_stems(captions: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Returns what a name can hold of captions, and the same without regard to case."""
    import pyarrow.compute as pc

    is_other = pc.invert(pc.match_substring_regex(captions, PLAIN))
    own = [legible(caption) for caption in captions.filter(is_other).to_pylist()]
    stems = pc.replace_with_mask(captions, is_other, pa.array(own, captions.type))
    folded = [fold_stem(stem) for stem in own]
    return stems, pc.replace_with_mask(pc.ascii_lower(stems), is_other, pa.array(folded, captions.type))


def _count_before(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns for each row how many before it are of its group."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    counts = np.empty(len(group), dtype=np.int64)
    counts[order] = np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group)))
    return counts


def _sharing_stems(
    rows: NDArray[np.int64],
    folders: NDArray[np.int64],
    stems: pa.Array,
    extensions: pa.Array,
    fold: pa.DictionaryArray,
    group: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Returns rows whose stem may be cut, and those that have such a stem, whole or cut, in the same folder."""
    import pyarrow.compute as pc

    some = pa.array(rows)
    each = zip(folders[rows].tolist(), stems.take(some).to_pylist(), extensions.take(some).to_pylist(), strict=True)
    keys = [(folder, stem, cut(stem, MAX_BYTES - len(ext.encode()) - SUFFIX_BYTES)) for folder, stem, ext in each]
    numbers = [folder for folder, _, _ in keys for _ in range(2)]
    folded = pa.array([fold_stem(text) for _, *texts in keys for text in texts], pa.large_string())
    at = pc.fill_null(pc.index_in(folded, fold.dictionary), -1).to_numpy()
    shared = (np.array(numbers) * max(1, len(fold.dictionary)) + at)[at >= 0]
    return np.union1d(rows, np.flatnonzero(np.isin(group, shared)))


def _name_one_by_one(
    named: Names, rows: NDArray[np.int64], folders: NDArray[np.int64], captions: pa.Array, extensions: pa.Array
) -> Names:
    import pyarrow.compute as pc

    writers: dict[int, NameWriter] = {}
    some = pa.array(rows)
    columns: list[Sequence[str]] = [captions.take(some).to_pylist(), extensions.take(some).to_pylist()]
    own = [
        writers.setdefault(folder, NameWriter()).name(caption, extension)
        for folder, caption, extension in zip(folders[rows].tolist(), *columns, strict=True)
    ]
    is_own = np.zeros(len(folders), dtype=bool)
    is_own[rows] = True
    named.needs_sidecar[rows] = [needs_sidecar for _, needs_sidecar in own]
    names = pc.replace_with_mask(named.names, pa.array(is_own), pa.array([name for name, _ in own], pa.large_string()))
    return named._replace(names=names)


def _join(*texts: pa.Array | str) -> pa.Array:
    import pyarrow.compute as pc

    arrays = [pa.scalar(text, pa.large_string()) if isinstance(text, str) else text for text in (*texts, "")]
    return pc.binary_join_element_wise(*arrays)


def _lengths(texts: pa.Array) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    return np.asarray(pc.binary_length(texts).to_numpy(False), dtype=np.int64)


def _differ(one: pa.Array, other: pa.Array) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    return np.asarray(pc.not_equal(one, other).to_numpy(False), dtype=bool)
