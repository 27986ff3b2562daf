"""The filter beside the bare DuckDB query with its predicates, and beside pandas as EveryDream uses it.

    python -m bench.filter [--rows 5000000] [--rounds 3] [--ours]

ours     filter_laion: funnel by predicate, each URL once, all that pass with keys, in parts that a kill can't halve.
duckdb   one query, the same predicates, all that pass into one parquet file; DuckDB's own settings.
pandas   the whole file read, then one mask after the other (EveryDream's scripts/download_laion.py).

Each measurement is a process of its own, which times the work without its imports and tells its own peak memory. They
take turns; pandas, which is many times slower, in the first round alone. Of the two layouts of row groups the worse
ratio counts. --ours runs ours alone, to see its memory over many rows. Prints a table and, last, one line of JSON.
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
    """A usual search: images of people, 512 pixels, nice, safe, no watermark, no stock sites."""
    return FilterConfig(index=[str(file) for file in files], words=Words(any=WORDS), min_aesthetic=5.0)


def ours(files: list[Path], output: Path) -> Callable[[], int]:
    """All of the stage; rows kept."""
    import pyarrow as pa

    import dreamloom.scrape.index.scan  # noqa: F401  (DuckDB is loaded late)
    from dreamloom.scrape.collection import Collection
    from dreamloom.scrape.index.filter import filter_laion

    pa.array([""])  # loads pandas, where there is one
    return lambda: filter_laion(Collection(output), config_for(files)).kept


def duckdb(files: list[Path], output: Path) -> Callable[[], int]:
    """One query; rows that pass, repeated addresses among them."""
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
    """What EveryDream asks for, mended (it keeps the unsafe); rows that pass: its words may be parts of words."""
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


WAYS = {"ours": ours, "duckdb": duckdb, "pandas": pandas}


def main() -> None:
    """Makes the indexes in a temporary folder, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", action="store_true", help="nothing but ours")
    parser.add_argument("--measure", nargs=3, metavar=("WAY", "INDEX", "OUTPUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        way, folder, output = given.measure
        measure(WAYS[way](sorted(Path(folder).iterdir()), Path(output)))
        return
    ways = ["ours"] if given.ours else list(WAYS)
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for number, (layout, group_rows) in enumerate(GROUP_ROWS.items()):
            folder = Path(place) / f"index-{number}"
            make_index(folder, given.rows, group_rows)
            found[layout] = {way: [] for way in ways}
            for turn in range(given.rounds):
                for way in ways if turn == 0 else ways[:2]:
                    output = Path(place) / "output" / f"{number}-{turn}-{way}"
                    output.parent.mkdir(exist_ok=True)
                    found[layout][way].append(measured(way, folder, output))
            shutil.rmtree(folder)
    report(given.rows, found)


def measure(work: Callable[[], int]) -> None:
    """In a process of its own: does the work, and prints what it took."""
    began = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "kept": kept}))


def peak_mb() -> float:
    """The most memory that this process has held; ru_maxrss would be its parent's, if that was more."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measured(way: str, folder: Path, output: Path) -> dict[str, float]:
    """What another process took for it."""
    command = [sys.executable, "-m", "bench.filter", "--measure", way, str(folder), str(output)]
    print(f"{way} over {folder.name} …", file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(rows: int, found: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Prints the medians, the ratios of rounds, and the worse of the layouts' as JSON."""
    print(f"{rows:,} rows")
    ratios: dict[str, list[float]] = {}
    for layout, ways in found.items():
        for way, runs in ways.items():
            seconds, peak = (statistics.median(run[what] for run in runs) for what in ("seconds", "peak_mb"))
            print(f"{layout:10} {way:7} {seconds:7.2f} s {peak:6.0f} MB {runs[0]['kept']:9,.0f} rows")
            pairs = zip(ways["ours"], runs, strict=False)  # pandas has fewer
            ratios.setdefault(way, []).append(statistics.median(a["seconds"] / b["seconds"] for a, b in pairs))
    peaks = {way: max(run["peak_mb"] for ways in found.values() for run in ways[way]) for way in ratios}
    line: dict[str, float] = {"rows": rows, "peak_mb": round(peaks["ours"])}
    if "duckdb" in ratios:
        line |= {"vs_duckdb": round(max(ratios["duckdb"]), 2), "vs_pandas": round(1 / max(ratios["pandas"]), 2)}
        line |= {"duckdb_peak_mb": round(peaks["duckdb"]), "pandas_peak_mb": round(peaks["pandas"])}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
