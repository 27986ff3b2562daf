"""A scrape of 5,000 that is killed, -9, at twenty random moments: what it lost, and what it fetched twice.

    python -m bench.kills [--images 5000] [--kills 20] [--seed 0]

A moment is chosen by how many rows the journal has, which is the one thing that a kill can hurt. Counts what was asked
for again though it was journaled, compares tables and images with an undisturbed run's, and prints JSON. Exits with 1
where anything differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench.scrape import candidates, served
from dreamloom.scrape.collection import Collection, Status, Table

FLAGS = ["--allow-private-addresses", "--min-side=16", "--concurrency-per-host=16", "--retries=0"]


def main() -> None:
    """Kills, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    dice = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place, served() as url:
        urls = [f"{url}/counted/{number}.jpg" for number in range(given.images)]
        calm, killed = Collection(Path(place) / "calm"), Collection(Path(place) / "killed")
        for collection in (calm, killed):
            candidates(collection, urls)
        subprocess.run(command(calm), check=True, stdout=subprocess.DEVNULL)
        before = hits(url)
        marks = sorted(dice.sample(range(given.images * 19 // 20), given.kills))
        lost, asked_when_journaled = 0, dict[str, int]()
        for mark in marks:
            kill_at(killed, mark, dice)
            rows, now = journaled(killed), hits(url)
            lost += sum(not whole(killed, row) for row in rows)
            asked_when_journaled = {path: now[path] for path in paths(rows)} | asked_when_journaled
        subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL)
        after = hits(url)
        twice = sum(after[path] > count for path, count in asked_when_journaled.items())
        asked = sum(after.values()) - sum(before.values())
        report = {
            "kills": len(marks),
            "requests_beyond_one_each": asked - given.images,
            "journaled_and_lost": lost,
            "journaled_and_fetched_twice": twice,
            "tables_equal": calm.stamps(Table.RECORDS) == killed.stamps(Table.RECORDS),
            "images_equal": images(calm) == images(killed),
        }
    print(json.dumps(report))
    sys.exit(lost + twice > 0 or not (report["tables_equal"] and report["images_equal"]))


def command(collection: Collection) -> list[str]:
    """The scrape, as a user runs it."""
    return [sys.executable, "-m", "dreamloom.flows.cli", "scrape", str(collection.root), *FLAGS]


def kill_at(collection: Collection, rows: int, dice: random.Random) -> None:
    """Begins a scrape, and kills it a moment after its journal has so many rows."""
    running = subprocess.Popen(command(collection), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(journal_lines(collection)) < rows:
        if running.poll() is not None:
            raise SystemExit(f"it ended by itself, with {running.returncode}, before {rows} rows")
        time.sleep(0.005)
    time.sleep(dice.uniform(0, 0.05))
    running.send_signal(signal.SIGKILL)
    running.wait()


def journal_lines(collection: Collection) -> list[bytes]:
    """Its whole lines, without the first, which is the plan."""
    path = collection.root / "records" / ".journal-00000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)[1:] if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


def journaled(collection: Collection) -> list[dict[str, Any]]:
    """The rows that are finished."""
    return [json.loads(line) for line in journal_lines(collection)]


def whole(collection: Collection, row: dict[str, Any]) -> bool:
    """Whether a row's image is there, if it should be."""
    return row["status"] != Status.OK or os.path.getsize(collection.root / row["image"]) == int(row["bytes"])


def paths(rows: list[dict[str, Any]]) -> list[str]:
    """What was asked for, as the server counts it."""
    return ["/" + row["url"].split("/", 3)[3] for row in rows]


def hits(url: str) -> dict[str, int]:
    """How often each path was asked for."""
    with urllib.request.urlopen(f"{url}/hits") as answer:
        counted: dict[str, int] = json.load(answer)
    return counted


def images(collection: Collection) -> dict[str, bytes]:
    """Name → bytes of every stored image."""
    return {path.name: path.read_bytes() for path in (collection.root / "images").rglob("*.*")}


if __name__ == "__main__":
    main()
