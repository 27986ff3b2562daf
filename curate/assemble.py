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
into the collections. Of collections at addresses, there is the manifest alone (dreamloom.curate.streamed).
"""

import json
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_folder, commit_text, remove, remove_leftovers
from dreamloom.base.files.remote import address_of
from dreamloom.base.files.tree_state import TreeLook
from dreamloom.base.images.copies import group_copies
from dreamloom.base.progress import Progress, silent
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.base.stage import Summary, recipe
from dreamloom.base.tables.held_out import HeldOutImage, to_json, write_held_out
from dreamloom.base.tables.parquet_metadata import write_table
from dreamloom.base.tables.streamed_set import has_training_set, streamed_metadata
from dreamloom.curate.adopt import refuse_hand_changes
from dreamloom.curate.balance import format_multiply
from dreamloom.curate.choose import sort_by_priority
from dreamloom.curate.config import BalanceConfig, NearDuplicates
from dreamloom.curate.hand_changes import note_as_made
from dreamloom.curate.history import decided_digest, read_history
from dreamloom.curate.manifest import (
    manifest_path,
    read_manifest_metadata,
)
from dreamloom.curate.manifest_rows import digest_content, make_manifest
from dreamloom.curate.place import LAYOUT, Placement, find_changes, name_files, write_files
from dreamloom.curate.source import Source
from dreamloom.curate.split import Split, split_images
from dreamloom.curate.streamed import StreamedImages, is_streamed, manifest_metadata_at, put_manifest, shards_of
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.store_cache import folder_of

VERSION = 4


def balance(
    sources: Sequence[Source],
    config: BalanceConfig,
    workspace: Path | str,
    progress: Progress = silent,
    store: str | None = None,
) -> Summary:
    """Writes the training folder, the held-out images and the manifest, unless they exist by the same recipe.

    Args:
        sources: all of them in folders, or all at addresses: then the manifest is written alone.
        config: how they are balanced.
        workspace: a folder; of sources at addresses also an address.
        progress: called with the number of images written.
        store: an address at which the manifest is written, too.

    Raises:
        UserError: a source has no choices yet; nothing is left to balance, the training folder was changed by hand,
            another process uses the workspace, or an address can't be written to.
    """
    streamed, ordered = is_streamed(sources), sort_by_priority(sources)
    folder, store = _places_of(workspace, store)
    if store is not None and not streamed:
        raise UserError(
            f"{store} is an address, and {ordered[0].collection.where} a folder, which others don't see; bring it to "
            "the store with `dreamloom collection copy`, or name a folder as workspace."
        )
    for source in ordered:
        source.collection.place.refresh()
    balance_recipe = _recipe(ordered, config)
    with lock(folder):
        remove_leftovers(folder)
        is_current = _is_current(folder, store, balance_recipe)
        seen = refuse_hand_changes(folder, anew=not is_current)
        if is_current:
            return Summary.from_json(read_manifest_metadata(manifest_path(folder))["summary"]).as_existing()
        if not streamed:
            return _assemble(ordered, config, folder, balance_recipe, seen, progress)
        if any((folder / name).exists() for name in ("dataset", "heldout")):
            raise UserError(
                f"{folder} has a training folder of images, and those of collections at addresses stay there; name "
                "another workspace."
            )
        return _assemble_streamed(ordered, config, folder, store, balance_recipe, progress)


def is_current(
    sources: Sequence[Source], config: BalanceConfig, workspace: Path | str, store: str | None = None
) -> bool:
    """Whether the training folder exists, made by this config from the present collections; see `balance`."""
    return _is_current(*_places_of(workspace, store), _recipe(sort_by_priority(sources), config))


def _places_of(workspace: Path | str, store: str | None) -> tuple[Path, str | None]:
    """Returns the folder of a workspace, which of one at an address is in the cache, and the address."""
    address = address_of(workspace)
    return (Path(workspace), store) if address is None else (folder_of(address), address)


def _recipe(ordered: Sequence[Source], config: BalanceConfig) -> str:
    upstream: list[str] = []
    for source in ordered:
        upstream += [source.name, source.role, str(source.share), str(source.multiply)]
        for table in (Table.RECORDS, Table.SCORES, Table.CHOICES, Table.CAPTIONS):
            upstream += source.collection.stamps(table)
        upstream += filter(None, [decided_digest(source.collection)])
        upstream += shards_of(source)
    return recipe("balance", VERSION, config, upstream)


def _is_current(folder: Path, store: str | None, balance_recipe: str) -> bool:
    exists = (folder / "heldout").is_dir() or not (folder / "dataset").is_dir()
    if not (exists and has_training_set(folder / "dataset")):
        return False
    made = [read_manifest_metadata(manifest_path(folder)), *([manifest_metadata_at(store)] if store else [])]
    return all(metadata.get("recipe") == balance_recipe for metadata in made)


def _decide(ordered: Sequence[Source], config: BalanceConfig, progress: Progress) -> tuple[pa.Table, Split, Placement]:
    """Returns all images, where they go, and what their files are."""
    rows = pa.concat_tables([read_history(source) for source in ordered])
    placed = split_images(rows, ordered, config, _find_copies(rows, ordered, progress))
    return rows, placed, name_files(rows, placed)


def _assemble(
    ordered: Sequence[Source],
    config: BalanceConfig,
    workspace: Path,
    balance_recipe: str,
    seen: TreeLook | None,
    progress: Progress,
) -> Summary:
    start = time.monotonic()
    rows, placed, placement = _decide(ordered, config, progress)
    described = _describe_sources(ordered, workspace)
    before = read_manifest_metadata(manifest_path(workspace)) if seen is not None else {}
    is_alike = (before.get("layout"), before.get("sources")) == (LAYOUT, described) and (workspace / "dataset").is_dir()
    changes = find_changes(workspace, rows, placement) if is_alike else None
    remove(manifest_path(workspace))
    with commit_folder(workspace / "heldout") as heldout:
        written = write_files(placement.select("heldout"), rows, placement, ordered, heldout)
        if held := _held_out(placed, placement):
            write_held_out(heldout, held)
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
    manifest = make_manifest(rows, placed, placement.files, written)
    summary = _summarize(manifest, rows["bytes"].filter(placement.files.is_valid()), start)
    metadata = _metadata(balance_recipe, config, manifest, summary, described)
    write_table(manifest_path(workspace), manifest, metadata)
    if seen is not None and changes is not None:
        multiplies = [f"dataset/{name}/multiply.txt" for name in placed.multiplies]
        note_as_made(workspace, seen, [f"{workspace}/{file}" for file in [*changes.files(placement), *multiplies]])
    return summary


def _assemble_streamed(
    ordered: Sequence[Source],
    config: BalanceConfig,
    folder: Path,
    store: str | None,
    balance_recipe: str,
    progress: Progress,
) -> Summary:
    start, target = time.monotonic(), store or f"file://{folder.absolute()}"
    rows, placed, placement = _decide(ordered, config, progress)
    images = StreamedImages(rows, placement, ordered, target)
    manifest = make_manifest(rows, placed, placement.files, images.crop_hashes)
    summary = _summarize(manifest, rows["bytes"].filter(placement.files.is_valid()), start)
    metadata = _metadata(balance_recipe, config, manifest, summary, _describe_sources(ordered, folder))
    multiplies = {name: format_multiply(multiply) for name, multiply in placed.multiplies.items()}
    metadata |= streamed_metadata(multiplies, to_json(_held_out(placed, placement)))
    manifest = images.add_to(manifest, rows)
    if store is not None:
        put_manifest(manifest, metadata, store)
    write_table(manifest_path(folder), manifest, metadata)
    images.remove_old_crops(target)
    return summary


def _metadata(
    balance_recipe: str, config: BalanceConfig, manifest: pa.Table, summary: Summary, described: str
) -> dict[str, str]:
    return {
        "recipe": balance_recipe,
        "content": digest_content(manifest),
        "config": config.model_dump_json(),
        "summary": summary.to_json(),
        "sources": described,
        "layout": LAYOUT,
    }


def _held_out(placed: Split, placement: Placement) -> dict[str, HeldOutImage]:
    """Returns what is known of held-out images, by their paths in heldout/."""
    described = {placement.file(row).partition("/")[2]: placed.describe(row) for row in placed.kinds}
    return dict(sorted(described.items()))


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
    kept = np.flatnonzero(rows["stage"].is_null().to_numpy())
    found: list[int | None] = [None] * len(rows)
    if all(_drops_copies(source) for source in ordered):
        return _group_equal_bytes(rows["sha256"], kept, found)
    collections = {source.name: source.collection for source in ordered}
    names, images = (rows[name].take(pa.array(kept)).to_pylist() for name in ("source", "image"))
    for name in [name for name, collection in collections.items() if collection.address]:
        collections[name].place.bring([image for own, image in zip(names, images, strict=True) if own == name])
    each = zip(names, images, strict=True)
    groups = group_copies([partial(collections[name].image, image) for name, image in each], progress)
    for row, group in zip(kept.tolist(), groups, strict=True):
        found[row] = group
    return found


def _group_equal_bytes(digests: pa.ChunkedArray, kept: NDArray[np.int64], found: list[int | None]) -> list[int | None]:
    """Fills in a number for each row that was kept and has the bytes of another."""
    codes = digests.take(pa.array(kept)).combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    several = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=1) > 1)
    places = np.flatnonzero(np.isin(codes, several))
    first: dict[int, int] = {}
    for place, code in zip(places.tolist(), codes[places].tolist(), strict=True):
        found[int(kept[place])] = first.setdefault(code, place)
    return found


def _drops_copies(source: Source) -> bool:
    parts = source.collection.parts(Table.CHOICES)
    config = source.collection.config(Table.CHOICES, parts[0]) if parts else {}
    dropped = config.get("near_duplicates", NearDuplicates.OFF) != NearDuplicates.OFF
    return bool(source.collection.parts(Table.SCORES)) and dropped


def _summarize(manifest: pa.Table, placed: pa.ChunkedArray, start: float) -> Summary:
    import pyarrow.compute as pc

    reasons = {row["values"]: row["counts"] for row in manifest["reason"].drop_null().value_counts().to_pylist()}
    kept, size = len(manifest) - sum(reasons.values()), pc.sum(placed).as_py() or 0
    dropped, seconds = dict(sorted(reasons.items())), time.monotonic() - start
    return Summary(rows=len(manifest), kept=kept, dropped=dropped, bytes_written=size, parts_done=1, seconds=seconds)


def _describe_sources(ordered: Sequence[Source], workspace: Path) -> str:
    """Returns the sources for the manifest, as JSON: name, role, and root, an address or relative to the workspace."""

    def root(collection: Collection) -> str:
        return collection.address or os.path.relpath(collection.root.resolve(), workspace.resolve())

    return json.dumps([{"name": s.name, "role": str(s.role), "root": root(s.collection)} for s in ordered])
