"""Compares the filter with a bare DuckDB query of the same predicates, and with pandas as EveryDream uses it.

    python -m bench.filter [--rows 5000000] [--rounds 3] [--ours]

ours     filter_laion: a funnel by predicate, each URL once, all passing rows with keys, in parts that survive a kill.
duckdb   one query with the same predicates, all passing rows into one parquet file; DuckDB's default settings.
pandas   reads the whole file, then applies one mask after the other (EveryDream's scripts/download_laion.py).

Each measurement is a process of its own, which times the work without imports and reports its peak memory. They take
turns; pandas, which is many times slower, runs in the first round only. The worse ratio of the two layouts of row
groups counts. --ours runs ours alone, to see its memory over many rows. Prints a table and, last, one line of JSON.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from bench.laion_index import GROUP_ROWS, make_index
from dreamloom.scrape.index.config import STOCK_SITES, FilterConfig
from dreamloom.scrape.index.words import Words

WORDS = ["man", "woman", "person"]


def config_for(files: list[Path]) -> FilterConfig:
    """Returns a usual search: images of people, 512 pixels, aesthetic, safe, no watermark, no stock sites."""
    return FilterConfig(index=[str(file) for file in files], words=Words(any=WORDS), min_aesthetic=5.0)


def ours(files: list[Path], output: Path) -> Callable[[], int]:
    """Prepares the whole stage; its work returns the rows kept."""
    import pyarrow as pa

    import dreamloom.scrape.index.scan  # noqa: F401  (DuckDB is loaded late)
    from dreamloom.scrape.collection import Collection
    from dreamloom.scrape.index.filter import filter_laion

    pa.array([""])  # loads pandas, where there is one
    return lambda: filter_laion(Collection(output), config_for(files)).kept


def duckdb(files: list[Path], output: Path) -> Callable[[], int]:
    """Prepares one query; its work returns the passing rows, including repeated URLs."""
    from duckdb import connect

    from dreamloom.scrape.index.columns import read_indexes
    from dreamloom.scrape.index.files import find_index_files
    from dreamloom.scrape.index.predicates import numeric_predicates, text_predicates

    config = config_for(files)
    (index,) = read_indexes(find_index_files(config.index))
    rules = [*numeric_predicates(config, index).values(), *text_predicates(config, index).values()]
    columns = ", ".join(column.name for column in index.columns.values())
    query = f"SELECT {columns} FROM read_parquet({[str(f) for f in files]}) WHERE ({') AND ('.join(rules)})"

    def work() -> int:
        connect().sql(f"COPY ({query}) TO '{output}' (FORMAT parquet)")
        return int(pq.read_metadata(output).num_rows)

    return work


def pandas(files: list[Path], output: Path) -> Callable[[], int]:
    """Prepares EveryDream's filter, corrected (it keeps the unsafe); its work returns the passing rows.

    More rows pass than ours, as its words also match parts of words.
    """
    from pandas import read_parquet

    def work() -> int:
        kept = 0
        for file in files:
            table = read_parquet(file)
            table = table[(table["HEIGHT"] >= 512) & (table["WIDTH"] >= 512)]
            table = table[table["punsafe"] < 0.1]
            table = table[table["aesthetic"] >= 5.0]
            table = table[table["TEXT"].str.contains("|".join(WORDS), case=False)]
            for site in STOCK_SITES:
                table = table[~table["URL"].str.contains(site, regex=False)]
            table.to_parquet(f"{output}-{file.name}")
            kept += len(table)
        return kept

    return work


METHODS = {"ours": ours, "duckdb": duckdb, "pandas": pandas}


def main() -> None:
    """Makes the indexes in a temporary folder, and measures on each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", action="store_true", help="run ours only")
    parser.add_argument("--measure", nargs=3, metavar=("METHOD", "INDEX", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        method, folder, output = arguments.measure
        measure(METHODS[method](sorted(Path(folder).iterdir()), Path(output)))
        return
    methods = ["ours"] if arguments.ours else list(METHODS)
    measurements: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for number, (layout, group_rows) in enumerate(GROUP_ROWS.items()):
            folder = Path(place) / f"index-{number}"
            make_index(folder, arguments.rows, group_rows)
            measurements[layout] = {method: [] for method in methods}
            for turn in range(arguments.rounds):
                for method in methods if turn == 0 else methods[:2]:
                    output = Path(place) / "output" / f"{number}-{turn}-{method}"
                    output.parent.mkdir(exist_ok=True)
                    measurements[layout][method].append(run_measurement(method, folder, output))
            shutil.rmtree(folder)
    report(arguments.rows, measurements)


def measure(work: Callable[[], int]) -> None:
    """Does the work, in a process of its own, and prints its time and memory."""
    started = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "kept": kept}))


def peak_mb() -> float:
    """Returns the peak memory of this process, in MB; ru_maxrss would be its parent's, if that was more."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def run_measurement(method: str, folder: Path, output: Path) -> dict[str, float]:
    """Runs one measurement in another process; returns what it prints."""
    command = [sys.executable, "-m", "bench.filter", "--measure", method, str(folder), str(output)]
    print(f"{method} over {folder.name} …", file=sys.stderr)
    completed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return dict(json.loads(completed.stdout.splitlines()[-1]))


def report(rows: int, measurements: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Prints the medians of all rounds, and the worse ratio of the two layouts as JSON."""
    print(f"{rows:,} rows")
    ratios: dict[str, list[float]] = {}
    for layout, methods in measurements.items():
        for method, runs in methods.items():
            seconds, peak = (statistics.median(run[what] for run in runs) for what in ("seconds", "peak_mb"))
            print(f"{layout:10} {method:7} {seconds:7.2f} s {peak:6.0f} MB {runs[0]['kept']:9,.0f} rows")
            pairs = zip(methods["ours"], runs, strict=False)  # pandas has fewer
            ratios.setdefault(method, []).append(statistics.median(a["seconds"] / b["seconds"] for a, b in pairs))
    peaks = {
        method: max(run["peak_mb"] for methods in measurements.values() for run in methods[method]) for method in ratios
    }
    line: dict[str, float] = {"rows": rows, "peak_mb": round(peaks["ours"])}
    if "duckdb" in ratios:
        line |= {"vs_duckdb": round(max(ratios["duckdb"]), 2), "vs_pandas": round(1 / max(ratios["pandas"]), 2)}
        line |= {"duckdb_peak_mb": round(peaks["duckdb"]), "pandas_peak_mb": round(peaks["pandas"])}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
