"""Measures how long a changed mind takes where there are many images: decisions by query, lists of runs, comparisons.

    python -m bench.changed_mind [--images 100000] [--rounds 3]

Makes a workspace of tables alone, with a manifest, and runs of as many images. Each command is a process of its own;
of several rounds the fastest counts. Prints JSON: wall and CPU seconds, and whether torch was loaded.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.stage import PART_ROWS, StageConfig, Summary
from dreamloom.base.tables.parquet_metadata import write_table
from dreamloom.base.versions import RUN
from dreamloom.curate.manifest import MANIFEST, manifest_path
from dreamloom.scrape.collection import SCHEMAS, Collection, Table
from dreamloom.train.config import TrainConfig
from dreamloom.train.run.contents import IMAGES_FILE, FolderContent, to_json
from dreamloom.train.run.folder import TrainSummary, write_settings, write_summary

RUNS = 10
WHERE = "aesthetic < 4 and source = 'web'"
_SCRIPT = """
import sys
from dreamloom.flows.commands.cli import run
code = run(sys.argv[1:])
print("torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    """Makes the workspace, measures, and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        workspace = Path(place) / "work"
        make_tables(workspace, arguments.images)
        for number in range(RUNS):
            make_run(workspace / "runs" / f"run-{number}", number, arguments.images)
        first, last = (str(workspace / "runs" / f"run-{number}") for number in (0, RUNS - 1))
        commands = {
            "drop --where --dry-run": ["drop", str(workspace), "--where", WHERE, "--dry-run"],
            "drop --where": ["drop", str(workspace), "--where", WHERE],
            "keep --where, after that": ["keep", str(workspace), "--where", WHERE],
            "drop by name, after that": ["drop", str(workspace), "a photo of 77"],
            "runs": ["runs", str(workspace)],
            "compare": ["compare", first, last, "--output", str(Path(place) / "compared")],
        }
        report = {}
        for name, words in commands.items():
            rounds = arguments.rounds if words[0] in ("runs", "compare") or "--dry-run" in words else 1
            report[name] = min((measure(words) for _ in range(rounds)), key=lambda found: float(found["wall_s"]))
    print(json.dumps({"images": arguments.images, "listed_runs": RUNS, **report}, indent=2))


def measure(words: Sequence[str]) -> dict[str, Any]:
    """Carries a command out in a process of its own."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-c", _SCRIPT, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "torch": done.stderr.splitlines()[-1] == "True"}


class _Drawn(StageConfig):
    """Tables of a bench are made by no stage."""


def make_tables(workspace: Path, images: int) -> None:
    """Writes the tables of a collection, and the manifest, as if so many images had gone through all stages."""
    collection, rng = Collection(workspace / "collections" / "web"), np.random.default_rng(0)
    listed = []
    for first in range(0, images, PART_ROWS):
        part, rows = f"{first // PART_ROWS:05d}", range(first, min(first + PART_ROWS, images))
        columns = _columns(part, rows, rng)
        for table in (Table.RECORDS, Table.SCORES, Table.CHOICES, Table.CAPTIONS):
            content = {name: columns[name] for name in SCHEMAS[table].names if name in columns}
            summary = Summary(rows=len(rows), kept=len(rows))
            collection.write(table, part, pa.table(content), recipe="drawn", config=_Drawn(), summary=summary)
        listed.append(pa.table({name: columns[name] for name in MANIFEST.names if name in columns}))
    manifest = pa.concat_tables(listed)
    for field in MANIFEST:
        if field.name not in manifest.column_names:
            manifest = manifest.append_column(field, pa.nulls(len(manifest), field.type))
    sources = json.dumps([{"name": "web", "role": "ground_truth", "root": "collections/web"}])
    write_table(manifest_path(workspace), manifest.select(MANIFEST.names).cast(MANIFEST), {"sources": sources})


def _columns(part: str, rows: range, rng: np.random.Generator) -> dict[str, Any]:
    """Returns the columns of all tables for some rows, by name."""
    keys = [f"{number:032x}" for number in rows]
    captions = [f"a photo of {number}" for number in rows]
    return {
        "key": keys,
        "source": ["web"] * len(rows),
        "role": ["ground_truth"] * len(rows),
        "split": ["train"] * len(rows),
        "status": ["ok"] * len(rows),
        "choice": ["kept"] * len(rows),
        "kind": ["alt"] * len(rows),
        "text_kind": ["alt"] * len(rows),
        "caption": captions,
        "text": captions,
        "url": [f"https://example.com/{key}.jpg" for key in keys],
        "image": [f"images/{part}/{key}.jpg" for key in keys],
        "file": [f"dataset/web/{caption}.jpg" for caption in captions],
        "aesthetic": pa.array(rng.uniform(2, 8, len(rows)), pa.float32()),
        "similarity": pa.array(rng.uniform(0, 0.4, len(rows)), pa.float32()),
        "embedding": pa.array(list(rng.normal(size=(len(rows), 768)).astype(np.float16)), pa.list_(pa.float16())),
    }


def make_run(run: Path, seed: int, images: int) -> None:
    """Writes what lists and comparisons read of a finished run."""
    config = TrainConfig(base=str(Path(__file__).parents[1] / "demo" / "models" / "stable-diffusion"), seed=seed)
    folder = FolderContent(images, "1", f"{seed:016x}", f"{seed:016x}")
    write_settings(run, f"{seed:032x}", run.parent.parent / "dataset", None, config, to_json({"web": folder}))
    names = [f"web/a photo of {number}.jpg" for number in range(images)]
    contents = [f"{number + seed:064x}" for number in range(images)]
    captions = [f"a photo of {number + seed}" for number in range(images)]
    rows = pa.table({"folder": ["web"] * images, "name": names, "content": contents, "caption": captions})
    pq.write_table(rows, run / IMAGES_FILE)
    change = {"change": 0.1, "error": 0.01, "base": 1.0, "now": 0.9, "images": 256}
    losses = {kind: {f"web/{number}.jpg": 1.0 for number in range(256)} for kind in ("training", "ground_truth")}
    point = {"images_seen": images, "learned": change, "forgotten": change, "groups": [], "verdict": ""}
    RUN.write_json(run / "evaluation.json", {"recipe": "drawn", "base": losses, "points": [point]})
    write_summary(run, TrainSummary(True, images, 0, images_seen=images, total_images=images, steps=images // 4))


if __name__ == "__main__":
    main()
