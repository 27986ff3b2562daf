"""Measures how the cost of each stage grows with the number of images, and what a chain of many costs that is finished.

    python -m bench.scale [--short] [--rows 10000 100000 1000000] [--only STAGE ...] [--keep FOLDER]

For each number of rows, the stages (bench/scale_stages.py) are run by the functions that the command and the chain
call, each in a process of its own, on one of torch's threads.

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
counts as that, so that a stage that costs the same for any number has the exponent 0. CPU, as wall time depends on what
else the machine does and on its disk. Peak memory is that of the process, with its libraries. Prints a table and, last,
a line of JSON: `exponents` by stage, and of the most rows `noop_s`, `plan_s`, `show_s`, `add_one_s`, `first_step_s` and
`near_duplicates_s` (wall), `near_duplicates_recall`, `stages`, all that was measured, and `cpu_s`, what all of it cost.

--short: 10,000 and 50,000 rows of tables; 1,000 and 5,000 images, as each of these costs a file.
torch and diffusers are then imported once for all stages of images, and count in their peak memory.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: threads that wait would count

from bench.scale_stages import STAGES
from bench.scale_world import World

SHORT = {False: (10_000, 50_000), True: (1_000, 5_000)}
"""Whether a stage is over images → the rows of --short."""
START = 200
"""Rows of the run that tells what a stage costs before it grows."""
RESOLUTION = 0.05
"""CPU seconds; about what repeated runs over START rows differ by."""
IMPORTED = (
    "dreamloom.train.loop.session",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "transformers.models.clip.modeling_clip",
)
"""What training imports, which takes seconds."""
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


def run(folder: Path, sizes: Sequence[int], stages: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """Measures stages over START rows and then over growing worlds, and prints a line for each."""
    measured: dict[str, list[dict[str, float]]] = {stage: [] for stage in stages}
    for size in (START, *sizes) if stages else ():
        world = World(folder / str(size), size)
        done: list[Callable[[World], object]] = []
        for stage in stages:
            for make in STAGES[stage].before:
                if make not in done:
                    in_process(make, world)
                    done.append(make)
            figures = in_process(measure, stage, world)
            measured[stage].append(figures)
            seconds = f"{figures['wall_s']:10.2f}{figures['cpu_s']:10.2f}"
            print(f"{stage:18}{size:11,}{seconds}{figures['peak_mb']:10,}", flush=True)
    return measured


def summarize(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Returns what the line of JSON says."""
    result: dict[str, Any] = {"exponents": {s: exponent(each) for s, each in measured.items() if len(each) > 2}}
    result |= {f"{stage}_s": measured[stage][-1]["wall_s"] for stage in SECONDS if stage in measured}
    if "near_duplicates" in measured:
        result["near_duplicates_recall"] = measured["near_duplicates"][-1]["recall"]
    return result | {"stages": measured, "cpu_s": round(_cpu(), 1)}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer rows: some 100 CPU seconds")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--only", choices=STAGES, nargs="+", default=list(STAGES), help="in their order")
    parser.add_argument("--keep", type=Path, help="folder in which the worlds are made and kept for another run")
    arguments = parser.parse_args()
    stages = [stage for stage in STAGES if stage in arguments.only]
    print(f"{'stage':18}{'rows':>11}{'wall s':>10}{'CPU s':>10}{'peak MB':>10}")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["DREAMLOOM_CACHE"] = f"{arguments.keep or temporary}/cache"
        measured: dict[str, list[dict[str, float]]] = {}
        for of_images, name in ((False, "tables"), (True, "images")):
            if of_images and arguments.short:
                for module in IMPORTED:
                    import_module(module)
            sizes = SHORT[of_images] if arguments.short else sorted(arguments.rows)
            of_kind = [stage for stage in stages if STAGES[stage].of_images == of_images]
            measured |= run((arguments.keep or Path(temporary)) / name, sizes, of_kind)
    for stage, value in (result := summarize(measured))["exponents"].items():
        print(f"{stage:18} exponent {value:.2f}")
    print(json.dumps(result))


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
