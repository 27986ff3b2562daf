"""The balance stage: assembles the training folder, in the ratio asked for, the held-out images and the manifest.

    dataset/<source>/                  EveryDream's format: images named by caption, and multiply.txt; a .yaml beside
                                       those that are shown in another way, by decision
    heldout/training/<source>/         held out from training, to measure learned
    heldout/ground_truth/<source>/     held out from training, to measure what is forgotten of what is rehearsed
    heldout/witness/<source>/          of sources and concepts that are not trained on at all
    heldout/concepts.json              what held-out images show
    dataset.parquet                    the manifest: what became of every key of every source

The manifest is removed first and written last, so a folder without one is incomplete. Folders are replaced as a whole,
but a large dataset/ of which little changes is changed in its place (dreamloom.curate.place). Images are hard links
into the collections.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from dreamloom.base.copies import group_copies
from dreamloom.base.errors import UserError
from dreamloom.base.files import commit_folder, commit_text, remove, remove_leftovers
from dreamloom.base.folder_lock import lock
from dreamloom.base.held_out import write_held_out
from dreamloom.base.parquet_metadata import digest_table, write_table
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.base.tree_state import TreeLook
from dreamloom.curate.adopt import refuse_hand_changes
from dreamloom.curate.balance import format_multiply
from dreamloom.curate.choose import sort_by_priority
from dreamloom.curate.config import BalanceConfig, NearDuplicates
from dreamloom.curate.hand_changes import note_as_made
from dreamloom.curate.history import decided_digest, read_history
from dreamloom.curate.manifest import (
    DROPPED,
    MANIFEST,
    TRAIN,
    manifest_path,
    read_manifest_metadata,
)
from dreamloom.curate.place import LAYOUT, Placement, find_changes, name_files, write_files
from dreamloom.curate.source import Source
from dreamloom.curate.split import Split, split_images
from dreamloom.scrape.collection import Table

VERSION = 4

_CONTENT = ["split", "file", "multiply", "caption", "sha256"]
_DECIDED = ["loss_scale", "flip", "crop", "replaced", "focus"]
"""Columns that belong to the content where anything was decided."""


def balance(
    sources: Sequence[Source], config: BalanceConfig, workspace: Path | str, progress: Progress = silent
) -> Summary:
    """Writes the training folder, the held-out images and the manifest, unless they exist by the same recipe.

    Raises:
        UserError: a source has no choices yet, or lies at an address; nothing is left to balance, the training folder
            was changed by hand, or another process uses the workspace.
    """
    workspace, ordered = Path(workspace), sort_by_priority(sources)
    for source in ordered:
        if address := source.collection.address:
            raise UserError(
                f"{address} is an address, and balance takes collections in folders; name it as a source of kind "
                "collection in project.yaml, or bring it here with `dreamloom collection copy`."
            )
    balance_recipe = _recipe(ordered, config)
    with lock(workspace):
        remove_leftovers(workspace)
        is_current = _is_current(workspace, balance_recipe)
        seen = refuse_hand_changes(workspace, anew=not is_current)
        if is_current:
            return Summary.from_json(read_manifest_metadata(manifest_path(workspace))["summary"]).as_existing()
        return _assemble(ordered, config, workspace, balance_recipe, seen, progress)


def is_current(sources: Sequence[Source], config: BalanceConfig, workspace: Path) -> bool:
    """Whether the training folder exists, made by this config from the present collections."""
    return _is_current(workspace, _recipe(sort_by_priority(sources), config))


def _recipe(ordered: Sequence[Source], config: BalanceConfig) -> str:
    upstream: list[str] = []
    for source in ordered:
        upstream += [source.name, source.role, str(source.share), str(source.multiply)]
        for table in (Table.RECORDS, Table.SCORES, Table.CHOICES, Table.CAPTIONS):
            upstream += source.collection.stamps(table)
        upstream += filter(None, [decided_digest(source.collection)])
    return recipe("balance", VERSION, config, upstream)


def _is_current(workspace: Path, balance_recipe: str) -> bool:
    exists = (workspace / "dataset").is_dir() and (workspace / "heldout").is_dir()
    return exists and read_manifest_metadata(manifest_path(workspace)).get("recipe") == balance_recipe


def _assemble(
    ordered: Sequence[Source],
    config: BalanceConfig,
    workspace: Path,
    balance_recipe: str,
    seen: TreeLook | None,
    progress: Progress,
) -> Summary:
    start = time.monotonic()
    rows = pa.concat_tables([read_history(source) for source in ordered])
    placed = split_images(rows, ordered, config, _find_copies(rows, ordered, progress))
    placement, described = name_files(rows, placed), _describe_sources(ordered, workspace)
    before = read_manifest_metadata(manifest_path(workspace)) if seen is not None else {}
    is_alike = (before.get("layout"), before.get("sources")) == (LAYOUT, described) and (workspace / "dataset").is_dir()
    changes = find_changes(workspace, rows, placement) if is_alike else None
    remove(manifest_path(workspace))
    with commit_folder(workspace / "heldout") as heldout:
        written = write_files(placement.select("heldout"), rows, placement, ordered, heldout)
        _describe_heldout(heldout, placed, placement)
        write = partial(write_files, rows=rows, placement=placement, ordered=ordered, progress=progress)
        if changes is not None:
            changes.remove(workspace)
            written |= write(changes.to_write, folder=workspace / "dataset")
            changes.sync(workspace, placement)
            _write_multiplies(workspace / "dataset", placed)
        else:
            with commit_folder(workspace / "dataset") as dataset:
                written |= write(placement.select("dataset"), folder=dataset)
                _write_multiplies(dataset, placed)
    manifest = _manifest(rows, placed, placement.files, written)
    summary = _summarize(manifest, rows["bytes"].filter(placement.files.is_valid()))
    summary.seconds = time.monotonic() - start
    metadata = {
        "recipe": balance_recipe,
        "content": _digest_content(manifest),
        "config": config.model_dump_json(),
        "summary": summary.to_json(),
        "sources": described,
        "layout": LAYOUT,
    }
    write_table(manifest_path(workspace), manifest, metadata)
    if seen is not None and changes is not None:
        multiplies = [f"dataset/{name}/multiply.txt" for name in placed.multiplies]
        note_as_made(workspace, seen, [f"{workspace}/{file}" for file in [*changes.files(placement), *multiplies]])
    return summary


def _describe_heldout(heldout: Path, placed: Split, placement: Placement) -> None:
    described = {placement.file(row).partition("/")[2]: placed.describe(row) for row in placed.kinds}
    if described:
        write_held_out(heldout, dict(sorted(described.items())))


def _write_multiplies(dataset: Path, placed: Split) -> None:
    for name, multiply in placed.multiplies.items():
        file, text = dataset / name / "multiply.txt", format_multiply(multiply) + "\n"
        if not file.parent.is_dir():
            continue
        if not file.exists():
            file.write_text(text, encoding="utf-8")
        elif file.read_text(encoding="utf-8") != text:
            commit_text(file, text)


def _find_copies(rows: pa.Table, ordered: Sequence[Source], progress: Progress) -> list[int | None]:
    """Returns a number for each row, the same for those that look the same; None: no other looks like it.

    Where choose dropped all copies, those that are left are captions of one download: they have the same bytes.
    """
    kept = [row for row, stage in enumerate(rows["stage"].to_pylist()) if not stage]
    if all(_drops_copies(source) for source in ordered):
        groups = _group_equal_bytes(rows["sha256"].take(kept).to_pylist())
    else:
        roots = {source.name: source.collection.root for source in ordered}
        names, images = rows["source"].to_pylist(), rows["image"].to_pylist()
        groups = group_copies([roots[names[row]] / images[row] for row in kept], progress)
    found: list[int | None] = [None] * len(rows)
    for row, group in zip(kept, groups, strict=True):
        found[row] = group
    return found


def _group_equal_bytes(digests: Sequence[str | None]) -> list[int | None]:
    counts, first = Counter(digests), dict[str, int]()
    return [
        first.setdefault(digest, place) if digest is not None and counts[digest] > 1 else None
        for place, digest in enumerate(digests)
    ]


def _drops_copies(source: Source) -> bool:
    parts = source.collection.parts(Table.CHOICES)
    config = source.collection.config(Table.CHOICES, parts[0]) if parts else {}
    dropped = config.get("near_duplicates", NearDuplicates.OFF) != NearDuplicates.OFF
    return bool(source.collection.parts(Table.SCORES)) and dropped


def _manifest(rows: pa.Table, placed: Split, files: pa.Array, written: Mapping[int, str]) -> pa.Table:
    import pyarrow.compute as pc

    reasons = pa.array(placed.reasons, pa.string())
    added = {
        "split": pa.array(placed.split, pa.string()),
        "file": files.cast(pa.string()),
        "file_sha256": _hashes(written, len(rows)),
        "multiply": _multiplies(placed, rows["source"]),
        "concepts": _concepts(placed),
        "stage": pc.if_else(reasons.is_valid(), "balance", rows["stage"].combine_chunks()),
        "reason": pc.coalesce(reasons, rows["reason"].combine_chunks()),
    }
    columns = [added[name] if name in added else rows[name] for name in MANIFEST.names]
    return pa.Table.from_arrays(columns, schema=MANIFEST)


def _hashes(written: Mapping[int, str], count: int) -> pa.Array:
    if not written:  # as nearly always
        return pa.nulls(count, pa.string())
    return pa.array([written.get(row) for row in range(count)], pa.string())


def _concepts(placed: Split) -> pa.Array:
    """Returns the concepts of each row, sorted; many rows have the same."""
    sorted_concepts: dict[frozenset[str], list[str]] = {}
    lists = [sorted_concepts.get(each) or sorted_concepts.setdefault(each, sorted(each)) for each in placed.concepts]
    return pa.array(lists, pa.list_(pa.string()))


def _multiplies(placed: Split, sources: pa.ChunkedArray) -> pa.Array:
    """Returns how often an epoch shows each row that is trained on, as multiply.txt and the YAML say it."""
    coded = sources.combine_chunks().dictionary_encode()
    ratings = {id(rating): rating for rating in placed.ratings}  # equal ones are one object: there are few
    numbers = {key: number for number, key in enumerate(ratings)}
    written = np.array(
        [
            [
                float(Fraction(format_multiply(placed.multiplies.get(name, Fraction(0)) * rating)))
                for rating in ratings.values()
            ]
            for name in coded.dictionary.to_pylist()
        ]
    )
    of_row = np.array([numbers[id(rating)] for rating in placed.ratings], dtype=np.int64)
    values = written[coded.indices.to_numpy(), of_row]
    return pa.array(values, pa.float64(), mask=np.array(placed.split) != TRAIN)


def _digest_content(manifest: pa.Table) -> str:
    """Hashes what is trained on and measured by; see `dreamloom.curate.manifest.content_digest`."""
    import pyarrow.compute as pc

    rows = manifest.filter(pc.not_equal(manifest["split"], DROPPED))
    return digest_table(rows.select([*_CONTENT, *(name for name in _DECIDED if rows[name].null_count < len(rows))]))


def _summarize(manifest: pa.Table, linked: pa.ChunkedArray) -> Summary:
    import pyarrow.compute as pc

    reasons = {row["values"]: row["counts"] for row in manifest["reason"].drop_null().value_counts().to_pylist()}
    kept, size = len(manifest) - sum(reasons.values()), pc.sum(linked).as_py() or 0
    dropped = dict(sorted(reasons.items()))
    return Summary(rows=len(manifest), kept=kept, dropped=dropped, bytes_written=size, parts_done=1)


def _describe_sources(ordered: Sequence[Source], workspace: Path) -> str:
    """Returns the sources for the manifest, as JSON: name, role, and root relative to the workspace."""
    roots = [os.path.relpath(source.collection.root.resolve(), workspace.resolve()) for source in ordered]
    each = zip(ordered, roots, strict=True)
    return json.dumps([{"name": s.name, "role": str(s.role), "root": root} for s, root in each])
