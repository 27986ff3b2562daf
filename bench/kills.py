"""Kills a scrape of 5,000 URLs at twenty random moments with SIGKILL, and counts what is lost or fetched twice.

    python -m bench.kills [--images 5000] [--kills 20] [--seed 0]

A moment is given by the number of rows in the journal, the only file that a kill can damage. Counts requests for
journaled rows, compares tables and images with those of an undisturbed run, and prints JSON. Exits with 1 if anything
differs.
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

from bench.scrape import serve, write_candidates
from dreamloom.scrape.collection import Collection, Status, Table

FLAGS = ["--allow-private-addresses", "--min-side=16", "--concurrency-per-host=16", "--retries=0"]


def main() -> None:
    """Kills, compares, and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as place, serve() as url:
        urls = [f"{url}/counted/{number}.jpg" for number in range(arguments.images)]
        undisturbed, killed = Collection(Path(place) / "undisturbed"), Collection(Path(place) / "killed")
        for collection in (undisturbed, killed):
            write_candidates(collection, urls)
        subprocess.run(command(undisturbed), check=True, stdout=subprocess.DEVNULL)
        before = hits(url)
        marks = sorted(rng.sample(range(arguments.images * 19 // 20), arguments.kills))
        lost, asked_when_journaled = 0, dict[str, int]()
        for mark in marks:
            kill_at(killed, mark, rng)
            rows, now = journaled_rows(killed), hits(url)
            lost += sum(not is_complete(killed, row) for row in rows)
            asked_when_journaled = {path: now[path] for path in paths(rows)} | asked_when_journaled
        subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL)
        after = hits(url)
        twice = sum(after[path] > count for path, count in asked_when_journaled.items())
        asked = sum(after.values()) - sum(before.values())
        report = {
            "kills": len(marks),
            "requests_beyond_one_each": asked - arguments.images,
            "journaled_and_lost": lost,
            "journaled_and_fetched_twice": twice,
            "tables_equal": undisturbed.stamps(Table.RECORDS) == killed.stamps(Table.RECORDS),
            "images_equal": images(undisturbed) == images(killed),
        }
    print(json.dumps(report))
    sys.exit(lost + twice > 0 or not (report["tables_equal"] and report["images_equal"]))


def command(collection: Collection) -> list[str]:
    """Returns the command line of the scrape."""
    return [sys.executable, "-m", "dreamloom.flows.commands.cli", "scrape", str(collection.root), *FLAGS]


def kill_at(collection: Collection, rows: int, rng: random.Random) -> None:
    """Starts a scrape, and kills it shortly after its journal has `rows` rows."""
    running = subprocess.Popen(command(collection), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(journal_lines(collection)) < rows:
        if running.poll() is not None:
            raise SystemExit(f"the scrape ended with exit code {running.returncode} before {rows} rows")
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.05))
    running.send_signal(signal.SIGKILL)
    running.wait()


def journal_lines(collection: Collection) -> list[bytes]:
    """Returns the complete lines of the journal, without the first, which is the plan."""
    path = collection.root / "records" / ".journal-00000.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)[1:] if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


def journaled_rows(collection: Collection) -> list[dict[str, Any]]:
    """Returns the rows in the journal."""
    return [json.loads(line) for line in journal_lines(collection)]


def is_complete(collection: Collection, row: dict[str, Any]) -> bool:
    """Whether the row has its image on disk, if its status is ok."""
    return row["status"] != Status.OK or os.path.getsize(collection.root / row["image"]) == int(row["bytes"])


def paths(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the paths of the rows' URLs, as the server counts them."""
    return ["/" + row["url"].split("/", 3)[3] for row in rows]


def hits(url: str) -> dict[str, int]:
    """Returns path → number of requests."""
    with urllib.request.urlopen(f"{url}/hits") as response:
        counts: dict[str, int] = json.load(response)
    return counts


def images(collection: Collection) -> dict[str, bytes]:
    """Returns name → bytes of all stored images."""
    return {path.name: path.read_bytes() for path in (collection.root / "images").rglob("*.*")}


if __name__ == "__main__":
    main()
