"""Times the selection of ground truth by CLIP embeddings, and says how well each kind covers what there is.

    python -m bench.variety [--rows 1000000] [--select 10000]

The embeddings are drawn: 2,000 kinds of Zipfian frequency on the sphere of 512 dimensions, each scattered around a
direction of its own, as crowds and rare things are. Each way to select runs in a process of its own, which reports
seconds, peak memory, coverage (mean cosine of an image to the nearest selected one) and the share of kinds that are in
the selection. Prints a table and, last, one line of JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from dreamloom.curate.rules.selection import coverage, select_nearest, select_random, select_variety

KINDS, DIMENSIONS, SCATTER = 2000, 512, 0.03
WAYS = ("random", "variety", "nearest")


def draw(rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns embeddings [rows, 512] and the kind of each."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(KINDS, DIMENSIONS)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    frequency = 1 / np.arange(1, KINDS + 1)
    kind = rng.choice(KINDS, rows, p=frequency / frequency.sum())
    vectors = np.empty((rows, DIMENSIONS), dtype=np.float32)
    for first in range(0, rows, 50_000):
        block = centres[kind[first : first + 50_000]]
        block += SCATTER * rng.standard_normal(block.shape, dtype=np.float32)
        vectors[first : first + 50_000] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors, kind


def measure(way: str, rows: int, count: int) -> dict[str, float]:
    """Selects in this process."""
    vectors, kind = draw(rows)
    start = time.perf_counter()
    if way == "random":
        selected = select_random([f"{row:032x}" for row in range(rows)], count, 0)
    elif way == "variety":
        selected = select_variety(vectors, count, 0)
    else:
        selected = select_nearest(vectors, vectors[:50], count)
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "coverage": round(coverage(vectors, selected, 0), 4),
        "kinds": round(len(np.unique(kind[selected])) / len(np.unique(kind)), 3),
    }


def main() -> None:
    """Runs each way and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--select", type=int, default=10_000)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.rows, arguments.select)))
        return
    results = {}
    print(f"{arguments.select} of {arguments.rows} embeddings\n\nselected by  seconds  peak MB  coverage  kinds")
    for way in WAYS:
        command = [sys.executable, "-m", "bench.variety", "--way", way]
        command += ["--rows", str(arguments.rows), "--select", str(arguments.select)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        results[way] = found
        print(f"{way:11}  {found['seconds']:7}  {found['peak_mb']:7}  {found['coverage']:8}  {found['kinds']:5}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
