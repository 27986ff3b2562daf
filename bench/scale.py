"""Measures how the cost of each stage grows with the number of images, and what a chain of many costs that is finished.

    python -m bench.scale [--short] [--rows 10000 100000 1000000] [--only STAGE ...] [--keep FOLDER]

For each number of rows, the stages (bench/scale_stages.py) are run by the functions that the command and the chain
call, each in a process of its own, on one thread.

filter, choose, caption   over tables that are drawn (bench/scale_world.py): so many rows of ground truth, 100 to learn
near_duplicates           a search of drawn embeddings of 512 numbers, one in ten a copy, by the rule `similar`; the
                          recall is that of these copies, all of which brute force finds
ingest, score, balance    over so many small images; scores are drawn, as models cost the same for each image: `score`
                          itself is measured on a twentieth of them, with the demo's CLIP
noop (run), plan, show    when the chain has ended, and nothing is to be done
first_step                a start of training on these images to its first step, the second of two
add_one                   one more image

The exponent of a stage is the slope of the logarithm of its CPU seconds over that of the rows: 1 is linear. What the
stage costs over START rows is subtracted from both before, as it is no part of the growth; a rest below RESOLUTION
counts as that, so that a stage that costs the same for any number has the exponent 0. Where the most rows cost less
than SURE more than the fewest, the exponent is mostly noise, and the stage is among the `unsure`. CPU, as wall time
depends on what else the machine does and on its disk. Prints a table and, last, a line of JSON: `exponents` by stage;
`us_a_row`, the CPU microseconds a row between the fewest and the most; of the most rows `noop_s`, `plan_s`, `show_s`,
`add_one_s`, `first_step_s` and `near_duplicates_s` (wall), `near_duplicates_recall`, `stages`, all that was measured,
and `cpu_s`, what all of it cost.

--short: 10,000 and 50,000 rows of tables; 1,000 and 5,000 images, as each of these costs a file, in parts of 500. Two
worlds are then measured at a time, so that two cores need half as long. What stages import is imported once for all,
and counts in their peak memory.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported: threads that wait would count

import numpy as np

from bench.scale_stages import STAGES
from bench.scale_world import World
from dreamloom.base.stage import PART_ROWS

SHORT = {False: (10_000, 50_000), True: (1_000, 5_000)}
"""Whether a stage is over images → the rows of --short."""
START = 200
"""Rows of the run that tells what a stage costs before it grows."""
RESOLUTION = 0.05
"""CPU seconds; about what repeated runs over START rows differ by."""
SURE = 10 * RESOLUTION
SHORT_PART_ROWS = 500
IMPORTED = (
    "dreamloom.train.loop.session",
    "duckdb",
    "faiss",
    "pandas",
    "pyarrow.compute",
    "pyarrow.dataset",
    "scipy.fftpack",
    "torch.utils.tensorboard",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "transformers.models.clip.modeling_clip",
)
"""What the stages import, which takes seconds."""
SECONDS = ("noop", "plan", "show", "add_one", "first_step", "near_duplicates")
"""Stages whose seconds have a key of their own."""


def measure(stage: str, world: World) -> dict[str, float]:
    """Measures a stage in this process."""
    work = STAGES[stage].prepare(world)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    wall, cpu = time.perf_counter(), _cpu()
    result = work()
    wall, cpu = time.perf_counter() - wall, _cpu() - cpu
    figures: dict[str, float] = result if isinstance(result, dict) else {}
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
    return {"rows": world.images, "wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_mb": peak} | figures


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a process of its own, which has what this one has imported."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function, arguments)


def exponent(measured: Sequence[Mapping[str, float]]) -> float:
    """Returns the slope of log CPU seconds over log rows, both less those of the run over START rows, the first."""
    rows, seconds = (np.array([figures[name] for figures in measured]) for name in ("rows", "cpu_s"))
    grown = np.maximum(seconds[1:] - seconds[0], RESOLUTION)
    return round(float(np.polyfit(np.log(rows[1:] - rows[0]), np.log(grown), 1)[0]), 3)


def run(world: World, stages: Sequence[str]) -> dict[str, dict[str, float]]:
    """Measures stages over a world, and prints a line for each."""
    measured: dict[str, dict[str, float]] = {}
    done: list[Callable[[World], object]] = []
    for stage in stages:
        for make in STAGES[stage].before:
            if make not in done:
                in_process(make, world)
                done.append(make)
        measured[stage] = figures = in_process(measure, stage, world)
        seconds = f"{figures['wall_s']:10.2f}{figures['cpu_s']:10.2f}"
        print(f"{stage:18}{world.images:11,}{seconds}{figures['peak_mb']:10,}", flush=True)
    return measured


def run_all(worlds: Sequence[tuple[World, Sequence[str]]], at_once: int) -> dict[str, list[dict[str, float]]]:
    """Measures the stages of all worlds, those that take longest first, and returns stage → figures by rising rows."""
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("fork")) as pool:
        longest_first = sorted(worlds, key=lambda each: (len(each[1]), each[0].images), reverse=True)
        results = list(pool.map(run, *zip(*longest_first, strict=True)))
    measured: dict[str, list[dict[str, float]]] = {}
    for stage, figures in (item for each in results for item in each.items()):
        measured.setdefault(stage, []).append(figures)
    return {
        stage: sorted(measured[stage], key=lambda figures: figures["rows"]) for stage in STAGES if stage in measured
    }


def summarize(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Returns what the line of JSON says."""
    grown = {stage: each[-1]["cpu_s"] - each[0]["cpu_s"] for stage, each in measured.items() if len(each) > 2}
    result: dict[str, Any] = {"exponents": {stage: exponent(measured[stage]) for stage in grown}}
    result["unsure"] = [stage for stage, seconds in grown.items() if seconds < SURE]
    result["us_a_row"] = {
        stage: round(1e6 * seconds / (measured[stage][-1]["rows"] - START), 1) for stage, seconds in grown.items()
    }
    result |= {f"{stage}_s": measured[stage][-1]["wall_s"] for stage in SECONDS if stage in measured}
    if "near_duplicates" in measured:
        result["near_duplicates_recall"] = measured["near_duplicates"][-1]["recall"]
    return result | {"stages": measured, "cpu_s": round(_cpu(), 1)}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer rows: some 70 CPU seconds")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--only", choices=STAGES, nargs="+", default=list(STAGES), help="in their order")
    parser.add_argument("--keep", type=Path, help="folder in which the worlds are made and kept for another run")
    arguments = parser.parse_args()
    stages = [stage for stage in STAGES if stage in arguments.only]
    print(f"{'stage':18}{'rows':>11}{'wall s':>10}{'CPU s':>10}{'peak MB':>10}")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["DREAMLOOM_CACHE"] = f"{arguments.keep or temporary}/cache"
        for module in IMPORTED if arguments.short else ():
            import_module(module)
        worlds = list[tuple[World, Sequence[str]]]()
        for of_images, name in ((False, "tables"), (True, "images")):
            of_kind = [stage for stage in stages if STAGES[stage].of_images == of_images]
            sizes = SHORT[of_images] if arguments.short else sorted(arguments.rows)
            make = partial(World, part_rows=SHORT_PART_ROWS if of_images and arguments.short else PART_ROWS)
            folder = (arguments.keep or Path(temporary)) / name
            worlds += [(make(folder / str(size), size), of_kind) for size in (START, *sizes) if of_kind]
        measured = run_all(worlds, at_once=2 if arguments.short else 1)
    for stage, value in (result := summarize(measured))["exponents"].items():
        unsure = ", but it costs too little to be sure" if stage in result["unsure"] else ""
        print(f"{stage:18} exponent {value:.2f}{unsure}")
    print(json.dumps(result))


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
