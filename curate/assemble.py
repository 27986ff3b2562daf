"""The training folder: chosen images under their captions, in the ratio asked for, and the manifest that knows them.

    dataset/<source>/                  EveryDream's format: images named by caption, and multiply.txt
    heldout/training/<source>/         never trained on, for learned
    heldout/ground_truth/<source>/     never trained on, for forgotten
    dataset.parquet                    the manifest: what became of every key of every source

All of it is ours and made anew as a whole: the manifest goes first and comes back last, so a folder without one is not
done. Images are hard links into the collections.
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
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit_folder, link, lock, remove_leftovers
from dreamloom.base.parquet_metadata import digest_table, read_metadata, write_table
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary, recipe
from dreamloom.caption.filename import NameWriter
from dreamloom.caption.sidecar import write_sidecar
from dreamloom.curate.balance import decimal, held_out, held_out_counts, solve
from dreamloom.curate.choose import in_order
from dreamloom.curate.config import BalanceConfig
from dreamloom.curate.history import SURVEY, survey
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Table

VERSION = 2

MANIFEST = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # Role
        pa.field("split", pa.string(), nullable=False),  # train, heldout or dropped
        pa.field("file", pa.string()),  # relative to the workspace; null where dropped
        pa.field("multiply", pa.float64()),  # of its folder; null unless train
        *(SURVEY.field(name) for name in SURVEY.names if name not in ("key", "source", "role", "image", "bytes")),
    ]
)
"""One row a record of every source, also of those that were dropped: training first, then in order. A row that was
dropped has the stage that did it, the reason, and a detail."""

_CONTENT = ["split", "file", "multiply", "caption", "sha256"]

TRAIN, HELD_OUT, DROPPED = "train", "heldout", "dropped"
NOT_DRAWN = "not_drawn"
"""Why an image is left out whose source's share of the ground truth is less than one image."""

_log = logging.getLogger(__name__)


def balance(sources: Sequence[Source], config: BalanceConfig, workspace: Path, progress: Progress = silent) -> Summary:
    """Makes the training folder, what is held out, and the manifest; nothing where they are there by this recipe.

    Raises:
        UserError: a source is not chosen yet, nothing is left to balance, or another process works here.
    """
    ordered = in_order(sources)
    wanted = _recipe(ordered, config)
    with lock(workspace):
        remove_leftovers(workspace)
        if _is_made(workspace, wanted):
            return Summary.from_json(read_metadata(manifest_path(workspace), "balance")["summary"]).as_existing()
        return _assemble(ordered, config, workspace, wanted, progress)


def is_current(sources: Sequence[Source], config: BalanceConfig, workspace: Path) -> bool:
    """Whether the training folder is there, made by this config from what is there now."""
    return _is_made(workspace, _recipe(in_order(sources), config))


def manifest_path(workspace: Path) -> Path:
    """Where a workspace's manifest lies."""
    return workspace / "dataset.parquet"


def read_manifest(path: Path) -> pa.Table:
    """The rows of a manifest (MANIFEST).

    Raises:
        UserError: it is not there, can't be read, or a newer release wrote it in another way.
    """
    read_metadata(path, "balance")  # which refuses what would be misread
    try:
        return pq.read_table(path, schema=MANIFEST, partitioning=None).replace_schema_metadata(None)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"The manifest {path} can't be read ({error}); run balance, which makes it.") from error


def content(path: Path) -> str:
    """Names what a manifest gives to train on and to measure by: images, captions, how often each is shown.

    What is made from it hangs on that alone, so that captions which were made again and are the same begin no new run.

    Raises:
        UserError: it is not there.
    """
    made = read_metadata(path, "balance")
    if "content" not in made:
        raise UserError(f"The manifest {path} is not there, or an old one; run balance, which makes it.")
    return made["content"]


def read_sources(path: Path) -> list[dict[str, Any]]:
    """The sources of a manifest: name, role, and root, the collection's folder relative to the workspace."""
    return list(json.loads(read_metadata(path, "balance").get("sources", "[]")))


def _recipe(ordered: Sequence[Source], config: BalanceConfig) -> str:
    upstream: list[str] = []
    for source in ordered:
        upstream += [source.name, source.role, str(source.share), str(source.multiply)]
        for table in (Table.RECORDS, Table.SCORES, Table.CHOICES, Table.CAPTIONS):
            upstream += source.collection.stamps(table)
    return recipe("balance", VERSION, config, upstream)


def _is_made(workspace: Path, wanted: str) -> bool:
    there = (workspace / "dataset").is_dir() and (workspace / "heldout").is_dir()
    return there and read_metadata(manifest_path(workspace), "balance").get("recipe") == wanted


def _assemble(
    ordered: Sequence[Source], config: BalanceConfig, workspace: Path, wanted: str, progress: Progress
) -> Summary:
    begun = time.monotonic()
    rows = pa.concat_tables([survey(source) for source in ordered])
    plan = _plan(rows, ordered, config)
    manifest_path(workspace).unlink(missing_ok=True)
    with commit_folder(workspace / "heldout") as heldout, commit_folder(workspace / "dataset") as dataset:
        files = _place(rows, plan, ordered, dataset, heldout, progress)
        for name, multiply in plan.multiplies.items():
            if (dataset / name).is_dir():
                (dataset / name / "multiply.txt").write_text(decimal(multiply) + "\n", encoding="utf-8")
    manifest = _manifest(rows, plan, files)
    summary = _summarise(manifest, sum(b for b, file in zip(rows["bytes"].to_pylist(), files, strict=True) if file))
    summary.seconds = time.monotonic() - begun
    metadata = {
        "recipe": wanted,
        "content": digest_table(manifest.filter(pc.not_equal(manifest["split"], DROPPED)).select(_CONTENT)),
        "config": config.model_dump_json(),
        "summary": summary.to_json(),
        "sources": json.dumps([_known(source, workspace) for source in ordered]),
    }
    write_table(manifest_path(workspace), manifest, metadata)
    return summary


@dataclass(frozen=True)
class _Plan:
    """Where each row goes, and how often its folder is shown."""

    split: list[str]
    multiplies: Mapping[str, Fraction]
    """Source → multiply, of those that an epoch draws from."""


def _plan(rows: pa.Table, ordered: Sequence[Source], config: BalanceConfig) -> _Plan:
    kept = rows.filter(pc.is_null(rows["stage"]))
    keys: dict[str, list[str]] = {source.name: [] for source in ordered}
    for name, key in zip(kept["source"].to_pylist(), kept["key"].to_pylist(), strict=True):
        keys[name].append(key)
    out: dict[str, set[str]] = {}
    for role, most in (
        (Role.TRAINING, config.held_out_max_training),
        (Role.GROUND_TRUTH, config.held_out_max_ground_truth),
    ):
        pictures = {s.name: len(keys[s.name]) for s in ordered if s.role is role}
        for name, count in held_out_counts(pictures, config.held_out, most).items():
            out[name] = held_out(keys[name], count, config.seed)
    left = {name: len(of_source) - len(out[name]) for name, of_source in keys.items()}
    solved = solve(
        {s.name: (left[s.name], s.multiply) for s in ordered if s.role is Role.TRAINING},
        {s.name: (left[s.name], s.share) for s in ordered if s.role is Role.GROUND_TRUTH},
        config.ratio,
    )
    drawn = {s.name: solved[s.name] for s in ordered if int(left[s.name] * solved[s.name]) > 0}
    _warn_of_repeats(ordered, left, drawn)
    whole = zip(rows["source"].to_pylist(), rows["key"].to_pylist(), rows["stage"].to_pylist(), strict=True)
    split = [
        DROPPED if stage else HELD_OUT if key in out[name] else TRAIN if name in drawn else DROPPED
        for name, key, stage in whole
    ]
    return _Plan(split, drawn)


def _warn_of_repeats(ordered: Sequence[Source], left: Mapping[str, int], drawn: Mapping[str, Fraction]) -> None:
    for source in ordered:
        multiply = drawn.get(source.name, Fraction(0))
        if source.role is Role.GROUND_TRUTH and multiply > 1:
            _log.warning(
                "%s has too few images (%d) for %d draws an epoch: each comes %s times; add some or lower its share",
                source.name,
                left[source.name],
                left[source.name] * multiply,
                f"{float(multiply):.3g}",
            )


def _place(
    rows: pa.Table, plan: _Plan, ordered: Sequence[Source], dataset: Path, heldout: Path, progress: Progress
) -> list[str | None]:
    """Links the images under their captions; gives each row's file relative to the workspace, None where dropped."""
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


def _link(picture: str, target: str) -> None:
    try:
        link(picture, target)
    except FileNotFoundError:
        raise UserError(
            f"{picture} is gone; delete the part of records that names it, and its stage makes it again."
        ) from None


def _manifest(rows: pa.Table, plan: _Plan, files: list[str | None]) -> pa.Table:
    undrawn = pc.and_(pc.equal(pa.array(plan.split), DROPPED), pc.is_null(rows["stage"].combine_chunks()))
    multiplies = {name: float(Fraction(decimal(multiply))) for name, multiply in plan.multiplies.items()}
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
        "stage": pc.if_else(undrawn, "balance", rows["stage"].combine_chunks()),
        "reason": pc.if_else(undrawn, NOT_DRAWN, rows["reason"].combine_chunks()),
    }
    columns = [added[name] if name in added else rows[name] for name in MANIFEST.names]
    return pa.Table.from_arrays(columns, schema=MANIFEST)


def _summarise(manifest: pa.Table, linked: int) -> Summary:
    reasons = Counter(reason for reason in manifest["reason"].to_pylist() if reason)
    kept = len(manifest) - sum(reasons.values())
    dropped = dict(sorted(reasons.items()))
    return Summary(rows=len(manifest), kept=kept, dropped=dropped, bytes_written=linked, parts_done=1)


def _known(source: Source, workspace: Path) -> dict[str, str]:
    root = os.path.relpath(source.collection.root.resolve(), workspace.resolve())
    return {"name": source.name, "role": str(source.role), "root": root}
