"""Measures how the cost of each stage grows with the number of images, and what a chain of many costs that is finished.

    python -m bench.scale [--short] [--rows 10000 100000 1000000] [--only STAGE ...] [--keep FOLDER]

For each number of rows a project is made with so many small images of ground truth and 100 to learn
(bench.scale_world). The stages are then run over it in their order, each by the function that the command and the chain
call, in a process of its own. Scores are drawn, as models cost the same for each image: `score` itself is measured on a
twentieth of the images, with the demo's CLIP. After the chain, measured are: nothing to do (`noop`: run; `plan`;
`show`), one more image (`add_one`), and a start of training to its first step, the second of two (`first_step`).

near_duplicates   a search of drawn embeddings of 512 numbers, one in ten a copy, by the rule `similar`; the recall is
                  that of these copies, all of which brute force finds.

The exponent of a stage is the slope of the logarithm of its CPU seconds over that of the rows: 1 is linear. What the
stage costs over START rows is subtracted from both before, as it is no part of the growth; a rest below RESOLUTION
counts as that, so that a stage that costs the same for any number has the exponent 0. CPU, as wall time depends on what
else the machine does and on its disk. Peak memory is that of the process, with its libraries. Prints a table and, last,
a line of JSON: `exponents` by stage, and of the most rows `noop_s`, `plan_s`, `show_s`, `add_one_s`, `first_step_s` and
`near_duplicates_s` (wall), `near_duplicates_recall`, `stages`, all that was measured, and `cpu_s`, what all of it cost.

--short: 10,000 and 50,000 rows; 1,000 and 5,000 for those WITH_FILES.
torch and diffusers are then imported once for all of these, and count in their peak memory.
"""

import argparse
import contextlib
import io
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

from bench.duplicates import draw_crowd
from bench.scale_world import World, make_pictures
from dreamloom.base.clip import load_clip
from dreamloom.base.progress import silent
from dreamloom.curate import score
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules.dedupe import NONE, near_duplicates
from dreamloom.curate.rules.duplicates import likeness
from dreamloom.flows import chain, commands
from dreamloom.flows.steps import BalanceStep, Step
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.filter import filter_laion
from dreamloom.train.loop.loop import train

Work = Callable[[], object]
"""What is measured; if it returns a dictionary, these are further figures."""

SCORED = 20
"""One image of so many is scored."""
FIRST_STEP_EPOCHS = 20
START = 200
"""Rows of the run that tells what a stage costs before it grows."""
RESOLUTION = 0.05
"""CPU seconds; about what repeated runs over START rows differ by."""


def filter_stage(world: World) -> Work:
    """Selects candidates of an index of as many rows."""
    config = FilterConfig(index=[str(world.index)], words={"any": ["woman", "dog", "house"]}, min_side=256)  # type: ignore[arg-type]
    return lambda: filter_laion(Collection(world.folder / "filtered"), config)


def step_stage(stage: str) -> Callable[[World], Work]:
    """Returns what makes the steps of the chain that have this name."""

    def prepare(world: World) -> Work:
        steps = [step for step in until_balance(world) if step.stage == stage]
        return lambda: [step.run(silent) for step in steps]

    return prepare


def score_stage(world: World) -> Work:
    """Scores a part of the images with the demo's CLIP, which is loaded before."""
    config = world.project.score
    assert config is not None
    files = sorted((world.folder / "world").rglob("*.jpg"))[::SCORED]
    rows = [{"key": file.stem, "image": file.relative_to(world.folder), "text": file.stem} for file in files]
    score.score_records(world.folder, config, rows[:32])
    return lambda: score.score_records(world.folder, config, rows)


def noop_stage(world: World) -> Work:
    """Runs the chain over what is finished."""
    return lambda: quietly(lambda: commands.run(world.folder, track=False))


def plan_stage(world: World) -> Work:
    """Plans a run over what is finished."""
    return lambda: quietly(lambda: commands.plan(world.folder))


def show_stage(world: World) -> Work:
    """Shows a finished workspace."""
    workspace, sheet = world.project.workspace, world.folder / "sheet.png"
    return lambda: quietly(lambda: commands.show(workspace, output=sheet))


def add_one_stage(world: World) -> Work:
    """Adds an image in the midst of the others, and takes it through all stages up to the training folder."""
    steps = until_balance(world)
    scoring = world.project.score
    assert scoring is not None
    make_pictures(world.folder / "world", 1, first=world.images + 1)
    load_clip(scoring, scoring.device)
    return lambda: [step.run(silent) for step in steps]


class FirstStep(Exception):
    """The first step is taken."""


def first_step_stage(world: World) -> Work:
    """Begins to train on all images, which another start has seen before."""
    import_module("dreamloom.train.loop.session")  # torch, which takes seconds, however many images there are
    return lambda: take_first_step(world)


def take_first_step(world: World) -> None:
    """Begins a run of 20 epochs, and breaks it off after its first step."""
    project = world.project
    epochs = {"epochs": FIRST_STEP_EPOCHS, "max_train_steps": None, "evaluate_every_n_steps": 0}
    config = project.train.model_copy(update=epochs)

    def break_off(done: int, total: int | None, note: str = "") -> None:
        if "images/s" in note:
            raise FirstStep

    with contextlib.suppress(FirstStep):
        train(project.workspace / "dataset", world.folder / "run", config, None, break_off)


def near_duplicates_stage(world: World) -> Work:
    """Searches drawn embeddings."""
    hashes, vectors, is_copy = draw_crowd("spread", world.images)
    alike = likeness(ChooseConfig(near_duplicates="similar"))  # type: ignore[arg-type]

    def search() -> dict[str, float]:
        repeats = near_duplicates(hashes, alike, vectors.__getitem__)
        return {"recall": round(float((repeats[is_copy] != NONE).mean()), 4)}

    return search


STAGES: Mapping[str, Callable[[World], Work]] = {
    "filter": filter_stage,
    "ingest": step_stage("ingest"),
    "score": score_stage,
    "choose": step_stage("choose"),
    "caption": step_stage("caption"),
    "balance": step_stage("balance"),
    "noop": noop_stage,
    "plan": plan_stage,
    "show": show_stage,
    "add_one": add_one_stage,
    "first_step": first_step_stage,
    "near_duplicates": near_duplicates_stage,
}
AFTER_TRAINING = ("noop", "plan", "show", "add_one", "first_step")
"""Stages over a chain that is finished, which also encodes all images."""
WITH_FILES = ("ingest", *AFTER_TRAINING)
"""Stages that --short measures over fewer images, as each of these costs a file."""
IMPORTED = (
    "dreamloom.train.loop.session",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "transformers.models.clip.modeling_clip",
)
"""What those stages import, which takes seconds."""
SECONDS = ("noop", "plan", "show", "add_one", "first_step", "near_duplicates")
"""Stages whose seconds have a key of their own."""


def until_balance(world: World) -> list[Step]:
    """Returns the steps of the chain up to the training folder."""
    steps = [step for level in chain.levels(world.project) for branch in level.branches for step in branch]
    return steps[: 1 + next(n for n, step in enumerate(steps) if isinstance(step, BalanceStep))]


def ingest_and_draw(world: World) -> None:
    """Ingests what is not yet, and draws the scores."""
    for step in until_balance(world):
        if step.stage == "ingest":
            step.run(silent)
    world.draw_scores()


def finish(world: World) -> None:
    """Runs the chain to its end, with drawn scores."""
    ingest_and_draw(world)
    chain.run(world.project, run_step)


def run_step(step: Step) -> Any:
    """Runs a step without showing anything."""
    return step.run(silent)


BEFORE: Mapping[str, Callable[[World], object]] = {
    "choose": ingest_and_draw,
    "noop": finish,
    "first_step": take_first_step,
}
"""What a process of its own does before a stage is measured."""


def quietly(command: Callable[[], None]) -> None:
    """Calls a command without its output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        command()


def prepare(stage: str, world: World) -> None:
    """Does what comes before a stage."""
    BEFORE[stage](world)


def measure(stage: str, world: World) -> dict[str, float]:
    """Measures a stage in this process."""
    work = STAGES[stage](world)
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
        if not (world.folder / "project.yaml").exists():
            in_process(world.make)
        for stage in stages:
            if stage in BEFORE:
                in_process(prepare, stage, world)
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
    parser.add_argument("--short", action="store_true", help="10,000 and 50,000 rows")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--only", choices=STAGES, nargs="+", default=list(STAGES), help="in their order")
    parser.add_argument("--keep", type=Path, help="folder in which the worlds are made and kept for another run")
    arguments = parser.parse_args()
    stages = [stage for stage in STAGES if stage in arguments.only]
    print(f"{'stage':18}{'rows':>11}{'wall s':>10}{'CPU s':>10}{'peak MB':>10}")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["DREAMLOOM_CACHE"] = f"{arguments.keep or temporary}/cache"
        folder = arguments.keep or Path(temporary)
        if arguments.short:
            measured = run(folder, (10_000, 50_000), [stage for stage in stages if stage not in WITH_FILES])
            for module in IMPORTED:
                import_module(module)
            measured |= run(folder, (1_000, 5_000), [stage for stage in stages if stage in WITH_FILES])
        else:
            measured = run(folder, sorted(arguments.rows), stages)
    for stage, value in (result := summarize(measured))["exponents"].items():
        print(f"{stage:18} exponent {value:.2f}")
    print(json.dumps(result))


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
