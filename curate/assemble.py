"""The balance stage: assembles the training folder, in the ratio asked for, the held-out images and the manifest.

    dataset/<source>/                  EveryDream's format: images named by caption, and multiply.txt
    heldout/training/<source>/         held out from training, to measure learned
    heldout/ground_truth/<source>/     held out from training, to measure forgotten
    dataset.parquet                    the manifest: what became of every key of every source

It is replaced as a whole: the manifest is removed first and written last, so a folder without one is incomplete. Images
are hard links into the collections.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit_folder, link, lock, remove, remove_leftovers
from dreamloom.base.parquet_metadata import digest_table, write_table
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.caption.filename import NameWriter
from dreamloom.caption.sidecar import write_sidecar
from dreamloom.curate.balance import count_held_out, format_multiply, select_held_out, solve_multiplies
from dreamloom.curate.choose import sort_by_priority
from dreamloom.curate.config import BalanceConfig
from dreamloom.curate.history import read_history
from dreamloom.curate.manifest import (
    DROPPED,
    HELD_OUT,
    MANIFEST,
    NOT_DRAWN,
    TRAIN,
    manifest_path,
    read_manifest_metadata,
)
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Table

VERSION = 3

_CONTENT = ["split", "file", "multiply", "caption", "sha256"]

_log = logging.getLogger(__name__)


def balance(
    sources: Sequence[Source], config: BalanceConfig, workspace: Path | str, progress: Progress = silent
) -> Summary:
    """Writes the training folder, the held-out images and the manifest, unless they exist by the same recipe.

    Raises:
        UserError: a source has no choices yet, nothing is left to balance, or another process uses the workspace.
    """
    workspace, ordered = Path(workspace), sort_by_priority(sources)
    balance_recipe = _recipe(ordered, config)
    with lock(workspace):
        remove_leftovers(workspace)
        if _is_current(workspace, balance_recipe):
            return Summary.from_json(read_manifest_metadata(manifest_path(workspace))["summary"]).as_existing()
        return _assemble(ordered, config, workspace, balance_recipe, progress)


def is_current(sources: Sequence[Source], config: BalanceConfig, workspace: Path) -> bool:
    """Whether the training folder exists, made by this config from the present collections."""
    return _is_current(workspace, _recipe(sort_by_priority(sources), config))


def _recipe(ordered: Sequence[Source], config: BalanceConfig) -> str:
    upstream: list[str] = []
    for source in ordered:
        upstream += [source.name, source.role, str(source.share), str(source.multiply)]
        for table in (Table.RECORDS, Table.SCORES, Table.CHOICES, Table.CAPTIONS):
            upstream += source.collection.stamps(table)
    return recipe("balance", VERSION, config, upstream)


def _is_current(workspace: Path, balance_recipe: str) -> bool:
    exists = (workspace / "dataset").is_dir() and (workspace / "heldout").is_dir()
    return exists and read_manifest_metadata(manifest_path(workspace)).get("recipe") == balance_recipe


def _assemble(
    ordered: Sequence[Source], config: BalanceConfig, workspace: Path, balance_recipe: str, progress: Progress
) -> Summary:
    start = time.monotonic()
    rows = pa.concat_tables([read_history(source) for source in ordered])
    plan = _plan(rows, ordered, config)
    remove(manifest_path(workspace))
    with commit_folder(workspace / "heldout") as heldout, commit_folder(workspace / "dataset") as dataset:
        files = _place(rows, plan, ordered, dataset, heldout, progress)
        for name, multiply in plan.multiplies.items():
            if (dataset / name).is_dir():
                (dataset / name / "multiply.txt").write_text(format_multiply(multiply) + "\n", encoding="utf-8")
    manifest = _manifest(rows, plan, files)
    summary = _summarize(manifest, sum(b for b, file in zip(rows["bytes"].to_pylist(), files, strict=True) if file))
    summary.seconds = time.monotonic() - start
    metadata = {
        "recipe": balance_recipe,
        "content": digest_table(manifest.filter(pc.not_equal(manifest["split"], DROPPED)).select(_CONTENT)),
        "config": config.model_dump_json(),
        "summary": summary.to_json(),
        "sources": json.dumps([_describe_source(source, workspace) for source in ordered]),
    }
    write_table(manifest_path(workspace), manifest, metadata)
    return summary


@dataclass(frozen=True)
class _Plan:
    """Where each row goes, and how often its folder is shown in an epoch."""

    split: list[str]
    multiplies: Mapping[str, Fraction]
    """Source → multiply, of the sources that an epoch draws from."""


def _plan(rows: pa.Table, ordered: Sequence[Source], config: BalanceConfig) -> _Plan:
    kept = rows.filter(pc.is_null(rows["stage"]))
    keys: dict[str, list[str]] = {source.name: [] for source in ordered}
    for name, key in zip(kept["source"].to_pylist(), kept["key"].to_pylist(), strict=True):
        keys[name].append(key)
    held_out: dict[str, set[str]] = {}
    for role, maximum in (
        (Role.TRAINING, config.held_out_max_training),
        (Role.GROUND_TRUTH, config.held_out_max_ground_truth),
    ):
        counts = {s.name: len(keys[s.name]) for s in ordered if s.role is role}
        for name, count in count_held_out(counts, config.held_out, maximum).items():
            held_out[name] = select_held_out(keys[name], count, config.seed)
    remaining = {name: len(source_keys) - len(held_out[name]) for name, source_keys in keys.items()}
    multiplies = solve_multiplies(
        {s.name: (remaining[s.name], s.multiply) for s in ordered if s.role is Role.TRAINING},
        {s.name: (remaining[s.name], s.share) for s in ordered if s.role is Role.GROUND_TRUTH},
        config.ratio,
    )
    drawn = {s.name: multiplies[s.name] for s in ordered if remaining[s.name] * multiplies[s.name] > 0}
    _warn_of_repeats(ordered, remaining, drawn)
    for source in ordered:
        name, multiply = source.name, float(drawn.get(source.name, 0))
        shown, kept_back = remaining[name] * multiply, len(held_out.get(name, ()))
        text = f"{remaining[name]:,} images × {multiply:.6g} = {shown:.6g} an epoch, {kept_back} held out"
        _log.info("%s (%s): %s", name, source.role, text)
    columns = zip(rows["source"].to_pylist(), rows["key"].to_pylist(), rows["stage"].to_pylist(), strict=True)
    split = [
        DROPPED if stage else HELD_OUT if key in held_out[name] else TRAIN if name in drawn else DROPPED
        for name, key, stage in columns
    ]
    return _Plan(split, drawn)


def _warn_of_repeats(ordered: Sequence[Source], remaining: Mapping[str, int], drawn: Mapping[str, Fraction]) -> None:
    for source in ordered:
        multiply = drawn.get(source.name, Fraction(0))
        if source.role is Role.GROUND_TRUTH and multiply > 1:
            _log.warning(
                "%s has too few images (%d) for %d draws per epoch: each is shown %s times; add some, or lower share",
                source.name,
                remaining[source.name],
                remaining[source.name] * multiply,
                f"{float(multiply):.3g}",
            )


def _place(
    rows: pa.Table, plan: _Plan, ordered: Sequence[Source], dataset: Path, heldout: Path, progress: Progress
) -> list[str | None]:
    """Links the images under their captions, and returns each row's file relative to the workspace; dropped: None."""
    roots = {source.name: f"{source.collection.root}/" for source in ordered}
    roles = {source.name: source.role for source in ordered}
    writers: dict[str, NameWriter] = {}
    files: list[str | None] = []
    columns = (rows[name].to_pylist() for name in ("source", "image", "caption"))
    for name, image, caption, split in zip(*columns, plan.split, strict=True):
        if split == DROPPED:
            files.append(None)
            continue
        inside = name if split == TRAIN else f"{roles[name]}/{name}"
        folder = f"{dataset if split == TRAIN else heldout}/{inside}"
        if folder not in writers:
            Path(folder).mkdir(parents=True)
            writers[folder] = NameWriter()
        file, needs_sidecar = writers[folder].name(caption, os.path.splitext(image)[1])
        _link(roots[name] + image, f"{folder}/{file}")
        if needs_sidecar:
            write_sidecar(Path(folder, file), caption)
        files.append(f"{'dataset' if split == TRAIN else 'heldout'}/{inside}/{file}")
        if len(files) % 1000 == 0:
            progress(len(files), len(rows))
    progress(len(rows), len(rows))
    return files


def _link(image: str, target: str) -> None:
    try:
        link(image, target)
    except FileNotFoundError:
        raise UserError(
            f"{image} is gone; delete the part of records that names it, and its stage makes it again."
        ) from None


def _manifest(rows: pa.Table, plan: _Plan, files: list[str | None]) -> pa.Table:
    not_drawn = pc.and_(pc.equal(pa.array(plan.split), DROPPED), pc.is_null(rows["stage"].combine_chunks()))
    multiplies = {name: float(Fraction(format_multiply(multiply))) for name, multiply in plan.multiplies.items()}
    added = {
        "split": pa.array(plan.split, pa.string()),
        "file": pa.array(files, pa.string()),
        "multiply": pa.array(
            [
                multiplies[name] if split == TRAIN else None
                for name, split in zip(rows["source"].to_pylist(), plan.split, strict=True)
            ],
            pa.float64(),
        ),
        "stage": pc.if_else(not_drawn, "balance", rows["stage"].combine_chunks()),
        "reason": pc.if_else(not_drawn, NOT_DRAWN, rows["reason"].combine_chunks()),
    }
    columns = [added[name] if name in added else rows[name] for name in MANIFEST.names]
    return pa.Table.from_arrays(columns, schema=MANIFEST)


def _summarize(manifest: pa.Table, linked: int) -> Summary:
    reasons = Counter(reason for reason in manifest["reason"].to_pylist() if reason)
    kept = len(manifest) - sum(reasons.values())
    dropped = dict(sorted(reasons.items()))
    return Summary(rows=len(manifest), kept=kept, dropped=dropped, bytes_written=linked, parts_done=1)


def _describe_source(source: Source, workspace: Path) -> dict[str, str]:
    root = os.path.relpath(source.collection.root.resolve(), workspace.resolve())
    return {"name": source.name, "role": str(source.role), "root": root}
