"""Measures the scraper against img2dataset 1.47, with a faulty web, and per URL.

    python -m bench.scrape [--images 1000] [--rounds 2] [--urls 100000] [--only peers|faults|urls] [--keep FOLDER]

peers   camera-like JPEGs from a loopback server: CPU time per image and peak memory of `dreamloom scrape` and of
        img2dataset, alternating; once to 512 px on the short side, JPEG q95, and once keeping files as they came
        (img2dataset's disable_all_reencoding, which decodes nothing; dreamloom decodes each file whole to know that it
        is one). Each is measured with all images and with a fifth, so that the start is told apart from an image.
faults  wall time with 50 to 150 ms of latency; the same with 2 % 404, 1 % that hang and 1 % corrupt, where a request
        may take three seconds.
urls    URLs with empty bodies: CPU time per URL, and the growth of memory.

The server is a process of its own and not measured. CPU time is that of a command and its children; memory is the peak
of the sum of their PSS. The last line is JSON.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.web import make_images
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.scrape.collection import Collection, Table, key_of

SIDE = 512
PART_ROWS = 10_000
SERVER = "bench.web"

IMG2DATASET = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(sys.argv[1], input_format="parquet", url_col="url", output_folder=sys.argv[2], output_format="files",
             image_size=512, resize_mode="keep_ratio", resize_only_if_bigger=True, encode_format="jpg",
             encode_quality=95, processes_count=2, thread_count=32, number_sample_per_shard=int(sys.argv[3]),
             disable_all_reencoding=sys.argv[4] == "as-they-came", timeout=30, enable_wandb=False)
"""
"""img2dataset with its best setting on two cores; of 16, 32, 64 and 256 threads, 32 and 64 are about equal."""


class NoConfig(StageConfig):
    """The config of candidates that no filter selected."""


@dataclass(frozen=True)
class Cost:
    """The cost of a run."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    statuses: Counter[str]


def main() -> None:
    """Runs the requested measurements, and prints tables and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--urls", type=int, default=100_000)
    parser.add_argument("--only", choices=["peers", "faults", "urls"])
    parser.add_argument("--keep", type=Path, help="folder in which images are made and kept for another run")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"python": platform.python_version(), "aiohttp": version("aiohttp")}
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        if arguments.only in (None, "peers"):
            report |= against_peers(arguments.keep or work / "images", arguments.images, arguments.rounds, work)
        if arguments.only in (None, "faults"):
            report |= with_faults(arguments.keep or work / "images", arguments.images, arguments.rounds, work)
        if arguments.only in (None, "urls"):
            report |= per_url(arguments.urls, work)
    print(json.dumps(report))


def against_peers(images: Path, count: int, rounds: int, work: Path) -> dict[str, Any]:
    """Compares CPU time and memory with img2dataset's, shrinking images and keeping them as they came."""
    make_images(images, count)
    few, costs = count // 5, defaultdict(list)
    with serve("--folder", str(images)) as url:
        urls = [f"{url}/file/{number}.jpg" for number in range(count)]
        runs: dict[str, Callable[[list[str], Path], Cost]] = {
            "img2dataset": lambda urls, place: run_img2dataset(urls, place, "shrunk"),
            "ours": lambda urls, place: run_dreamloom(urls, place, f"--shrink-to={SIDE}"),
            "img2dataset, as they came": lambda urls, place: run_img2dataset(urls, place, "as-they-came"),
            "ours, as they came": lambda urls, place: run_dreamloom(urls, place, "--shrink-to=8192"),
        }
        for turn in range(rounds):
            for name, run in runs.items():
                for size in (few, count):
                    costs[name, size].append(run(urls[:size], work / f"{name} {size} {turn}"))
                    cost = costs[name, size][-1]
                    print(f"{name}, {size} images: {cost.cpu_s:.1f} s of CPU", file=sys.stderr, flush=True)
                    assert cost.statuses.total() == size
    medians = {key: median_cost(each) for key, each in costs.items()}
    return compare_costs({name: (medians[name, few], medians[name, count]) for name in runs}, count)


def median_cost(costs: list[Cost]) -> Cost:
    """Returns the medians of some runs, and the statuses of the last."""
    cpu, wall, peak = (median(getattr(cost, field) for cost in costs) for field in ("cpu_s", "wall_s", "peak_mb"))
    return Cost(cpu, wall, peak, costs[-1].statuses)


def compare_costs(costs: dict[str, tuple[Cost, Cost]], count: int) -> dict[str, Any]:
    """Prints the table, and returns the figures.

    Args:
        costs: for each program, of a fifth of the images, and of all.
        count: the number of all images.
    """
    margins = {name: (whole.cpu_s - part.cpu_s) / (count - count // 5) for name, (part, whole) in costs.items()}
    head = f"{'cold, ms/image':>15}{'start, s':>10}{'then, ms/image':>15}{'wall s':>8}{'peak MB':>9}"
    print(f"{'CPU':<28}{head}   statuses")
    for name, (_, whole) in costs.items():
        start = whole.cpu_s - margins[name] * count
        cold, then = 1000 * whole.cpu_s / count, 1000 * margins[name]
        figures = f"{cold:>15.1f}{start:>10.1f}{then:>15.1f}{whole.wall_s:>8.1f}{whole.peak_mb:>9.0f}"
        print(f"{name:<28}{figures}   {dict(whole.statuses)}")
    ratios: dict[str, Any] = {}
    for kind, suffix in (("shrunk", ""), ("as_they_came", ", as they came")):
        theirs, ours = costs[f"img2dataset{suffix}"][1], costs[f"ours{suffix}"][1]
        ratios[f"{kind}_cold"] = round(theirs.cpu_s / ours.cpu_s, 2)
        ratios[f"{kind}_then"] = round(margins[f"img2dataset{suffix}"] / margins[f"ours{suffix}"], 2)
        ratios[f"{kind}_memory"] = round(ours.peak_mb / theirs.peak_mb, 3)
    return ratios


def with_faults(images: Path, count: int, rounds: int, work: Path) -> dict[str, Any]:
    """Measures how much longer a run takes when the web has faults."""
    make_images(images, count)
    walls: dict[str, list[float]] = {"latency": [], "faults": []}
    statuses: Counter[str] = Counter()
    with serve("--folder", str(images)) as url:
        for turn in range(rounds):
            for kind in walls:
                urls = [f"{url}/{kind}/{number}.jpg" for number in range(count)]
                cost = run_dreamloom(urls, work / f"{kind}{turn}", "--timeout-s=3", f"--shrink-to={SIDE}")
                walls[kind].append(cost.wall_s)
                if kind == "faults":
                    statuses = cost.statuses
    expected = {"ok": 96 * count // 100, "http_404": count // 50, "timeout": count // 100, "truncated": count // 100}
    calm, faulty = median(walls["latency"]), median(walls["faults"])
    print(f"wall, 50 to 150 ms of latency: {calm:.1f} s; with faults: {faulty:.1f} s")
    print(f"statuses: {dict(statuses)}; as expected: {statuses == expected}")
    return {"faults_wall": round(faulty / calm, 3), "faults_classified": statuses == expected}


def per_url(count: int, work: Path) -> dict[str, Any]:
    """Measures CPU time per URL with an empty body, and the memory of many URLs against that of a tenth."""
    with serve() as url:
        few, many = (
            run_dreamloom([f"{url}/empty/{number}" for number in range(n)], work / f"empty{n}", "--min-success-rate=0")
            for n in (count // 10, count)
        )
    cpu_ms = 1000 * (many.cpu_s - few.cpu_s) / (count - count // 10)
    print(f"{count} URLs: {many.wall_s:.0f} s wall, {cpu_ms:.3f} ms CPU each; {dict(many.statuses)}")
    print(f"peak memory {many.peak_mb:.0f} MB, of {count // 10}: {few.peak_mb:.0f} MB")
    return {"ms_per_url": round(cpu_ms, 3), "memory_growth": round(many.peak_mb / few.peak_mb, 3)}


def run_dreamloom(urls: list[str], place: Path, *flags: str) -> Cost:
    """Measures `dreamloom scrape` on these URLs."""
    collection = Collection(place)
    write_candidates(collection, urls)
    base = [
        "--allow-private-addresses",
        "--concurrency-per-host=32",
        "--encode-format=jpeg",
        "--encode-quality=95",
        "--max-placeholder-copies=1000",
    ]
    cpu, wall, peak = measure(
        [sys.executable, "-m", "dreamloom.flows.commands.cli", "scrape", str(place), *base, *flags]
    )
    statuses = Counter(collection.read(Table.RECORDS, columns=["status"]).column(0).to_pylist())
    return Cost(cpu, wall, peak, statuses)


def write_candidates(collection: Collection, urls: list[str]) -> None:
    """Writes a collection's candidates."""
    for start in range(0, len(urls), PART_ROWS):
        part_urls = urls[start : start + PART_ROWS]
        rows = [{"key": key_of("url", url), "url": url, "text": "an image"} for url in part_urls]
        summary = Summary(rows=len(rows), kept=len(rows))
        name = f"{start // PART_ROWS:05d}"
        collection.write(Table.CANDIDATES, name, rows, recipe="bench", config=NoConfig(), summary=summary)


def run_img2dataset(urls: list[str], place: Path, files: str) -> Cost:
    """Measures img2dataset on these URLs; `files` is shrunk or as-they-came."""
    place.mkdir()
    pq.write_table(pa.table({"url": urls}), place / "urls.parquet")
    arguments = [str(place / "urls.parquet"), str(place / "out"), str(-(-len(urls) // 4)), files]
    (place / "run.py").write_text(IMG2DATASET)  # its processes import it
    cpu, wall, peak = measure([sys.executable, str(place / "run.py"), *arguments])
    tables = [pq.read_table(path, columns=["status"]) for path in sorted((place / "out").glob("*.parquet"))]
    return Cost(cpu, wall, peak, Counter(pa.concat_tables(tables).column(0).to_pylist()))


def measure(command: list[str]) -> tuple[float, float, float]:
    """Runs a command. Returns CPU seconds, wall seconds and peak megabytes of it and its children."""
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    begun, peak = time.monotonic(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        peak = max(peak, sum(map(_pss_mb, _with_children(process.pid))))
        time.sleep(0.1)
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    if status:
        raise SystemExit(f"{command} failed:\n{errors}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - begun, peak


def _with_children(pid: int) -> list[int]:
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids += [process for child in task.read_text().split() for process in _with_children(int(child))]
        except OSError:
            continue
    return pids


def _pss_mb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:")), 0.0)


@contextmanager
def serve(*arguments: str) -> Iterator[str]:
    """Serves `bench.web` in a process of its own. Yields its URL."""
    process = subprocess.Popen([sys.executable, "-m", SERVER, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
