"""`dreamloom demo`: the chain over the demo's small world, with and without ground truth, side by side.

    demo-world/
      pictures/zorp/ index/ coco/ ffhq/ imagenet/ models/   what a user has (dreamloom.demo.home)
      project.yaml  without.yaml                            what a user writes
      with/ without/                                        the workspaces
      without.log                                           output of the second run, beside the first
      exam/                                                 drawings of each model (dreamloom.demo.exam)
      picture.png                                           the comparison

What exists is left as it is: a killed run is continued, and a finished one has nothing to do.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from PIL import Image

from dreamloom.base.errors import StageFailed, UserError
from dreamloom.base.files.atomic import commit
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.demo.comparison import draw_comparison
from dreamloom.demo.exam import SHOWN, ExamResult, examine
from dreamloom.demo.folders import CONCEPT
from dreamloom.demo.home import PROJECT, WITHOUT, check_home, make_home
from dreamloom.demo.site import serve

EXHIBITS = 1500
"""Images of the site in its index."""
EXAMINED = 64
"""Images that each model draws of the concept, and again of everything else."""
DASHBOARD_PORT = 4200


def demo(*, folder: Path = Path("demo-world"), seed: int | None = None, dashboard: bool = False) -> None:
    """Teach a small model a new thing with and without ground truth, and compare what it forgets, in about 4 minutes.

    Parameters
    ----------
    folder
        Folder for the demo's world and all results.
    seed
        Seed of both trainings; by default the folder's, which is 0 in a new one.
    dashboard
        Run both as Prefect flows, and leave a Prefect server running that shows them.
    """
    begun = time.monotonic()
    if seed is not None and not 0 <= seed < 2**63:
        raise UserError(f"--seed is a number from 0 to {2**63 - 1}, not {seed}.")
    check_home(folder)
    with lock(folder):
        port = make_home(folder, seed or 0, EXHIBITS)
        _check_seed(folder / PROJECT, seed)
        with serve(port), _tracking(folder, dashboard) as tracked, _beside(folder / WITHOUT, tracked) as wait:
            finished = _run_chain(folder / PROJECT, tracked) and wait()
        if finished:
            arms = compare(folder, EXAMINED)
            draw(folder / "picture.png", arms)
            _print_results(folder, arms, time.monotonic() - begun)


def _check_seed(project: Path, seed: int | None) -> None:
    from dreamloom.flows.project.project import load_project

    existing = load_project(project).train.seed
    if seed is not None and seed != existing:
        raise UserError(f"{project} was made with seed {existing}; name another --folder for seed {seed}.")


def _run_chain(project: Path, tracked: bool) -> bool:
    """Runs the chain as `dreamloom run` does; returns False where it was stopped early."""
    from dreamloom.flows.commands.project import run

    print(f"\ndreamloom run {project}", flush=True)
    run(project, track=tracked)
    return _finished(project)


def _finished(project: Path) -> bool:
    from dreamloom.flows.chain.chain import run_folder
    from dreamloom.flows.project.project import load_project
    from dreamloom.train.run.folder import read_summary

    return read_summary(run_folder(load_project(project))) is not None


@contextmanager
def _beside(project: Path, tracked: bool) -> Iterator[Callable[[], bool]]:
    """Runs the chain in another process, as one with such small models does not keep two cores busy.

    Yields a function that waits for its end, prints its output, and returns whether it is finished. A process that is
    not waited for is asked to stop, and saves its state.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))  # read when torch is imported
    command = [
        sys.executable,
        "-m",
        "dreamloom.flows.commands.cli",
        "run",
        str(project.absolute()),
        "--track" if tracked else "--no-track",
    ]
    log = project.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def wait() -> bool:
        code = process.wait()
        print(f"\ndreamloom run {project}, meanwhile\n{log.read_text().rstrip()}", flush=True)
        if code != 0:
            raise StageFailed(f"{project} failed; {log} says why.")
        return _finished(project)

    print(f"dreamloom run {project} runs meanwhile; its output is in {log}.", flush=True)
    try:
        yield wait
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _tracking(folder: Path, dashboard: bool) -> Iterator[bool]:
    """Starts a Prefect server that outlives the run, for the dashboard; yields whether the chain runs as a flow."""
    if not dashboard:
        yield False
        return
    home = (folder / "prefect").absolute()
    os.environ |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{DASHBOARD_PORT}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--background", "--port", str(DASHBOARD_PORT)]
    started = subprocess.run(command, capture_output=True, text=True)
    output = " ".join(f"{started.stdout} {started.stderr}".split())
    if started.returncode != 0 and "already" not in output:
        raise UserError(f"The Prefect server does not start: {output}")
    _wait_for(f"{os.environ['PREFECT_API_URL']}/health")
    try:
        yield True
    finally:
        print(f"\nThe dashboard is at http://127.0.0.1:{DASHBOARD_PORT}, until it is stopped:")
        print(f"PREFECT_HOME={home} {sys.executable} -m prefect server stop")


def _wait_for(address: str) -> None:
    """Waits until the server answers, which creates its database first."""
    for _ in range(120):
        with suppress(OSError), urlopen(address, timeout=5):
            return
        time.sleep(0.5)
    raise UserError(f"The Prefect server was started, but {address} does not answer; check what uses its port.")


# Results


@dataclass(frozen=True)
class Arm:
    """One of the compared models."""

    name: str
    drawings: Path
    """The folder of its drawings (dreamloom.demo.exam)."""
    exam: ExamResult
    learned: str
    """In percent, as text; empty for the model before training."""
    forgotten: str


def compare(folder: Path, examined: int) -> list[Arm]:
    """Compares the base model and both arms, on the same held-out images and the same unseen prompts."""
    seen = _captions(folder)
    before = examine(folder / "models" / "stable-diffusion", folder / "exam" / "before", examined, seen)
    arms = [Arm("before", folder / "exam" / "before", before, "", "")]
    for name, file in (("without ground truth", WITHOUT), ("with ground truth", PROJECT)):
        workspace, evaluation = _evaluation(folder, folder / file)
        drawings = folder / "exam" / workspace.name
        exam = examine(workspace / "model", drawings, examined, seen)
        arms.append(Arm(name, drawings, exam, _figure(evaluation["learned"]), _figure(evaluation["forgotten"])))
    return arms


def _captions(folder: Path) -> set[str]:
    """The captions of all images that an arm was given."""
    from dreamloom.curate.manifest import manifest_path, read_manifest
    from dreamloom.flows.project.project import load_project

    manifests = [manifest_path(load_project(folder / file).workspace) for file in (PROJECT, WITHOUT)]
    captions = [read_manifest(path)["caption"].to_pylist() for path in manifests]
    return {text for texts in captions for text in texts if text}


def _evaluation(folder: Path, file: Path) -> tuple[Path, dict[str, Any]]:
    """A project's workspace, and the evaluation of its model on the images that project.yaml holds out.

    The project without ground truth holds none out to measure forgetting by, so both use the images of the other.
    """
    from dreamloom.base.progress import silent
    from dreamloom.flows.chain.chain import run_folder
    from dreamloom.flows.chain.train_steps import EvaluateStep
    from dreamloom.flows.project.project import load_project
    from dreamloom.train.evaluate.config import as_trained

    project, full = load_project(file), load_project(folder / PROJECT)
    output = project.workspace / "report" / "compared.json"
    run, heldout = run_folder(project), full.workspace / "heldout"
    config = as_trained(project.train, project.evaluate)
    step = EvaluateStep(lambda: run, project.train.base, heldout, config, output)
    step.run(silent)
    return project.workspace, json.loads(output.read_text())["evaluation"]


def _figure(measure: dict[str, Any]) -> str:
    from dreamloom.train.evaluate.measure import percent

    return percent(measure["change"], measure["error"])


def draw(target: Path, arms: list[Arm]) -> None:
    """Draws the comparison of the arms."""
    rows = [
        (
            arm.name,
            f"right: {arm.exam.concept.right} of {arm.exam.concept.of} {CONCEPT}s, "
            f"{arm.exam.general.right} of {arm.exam.general.of} others",
            [np.asarray(Image.open(arm.drawings / f"{number:03}.png")) for number in arm.exam.shown],
            [arm.exam.right[number] for number in arm.exam.shown],
        )
        for arm in arms
    ]
    title = f"What a {CONCEPT} is, learned from 48 images: framed green where all of the caption is right"
    prompts = [arms[0].exam.prompts[number] for number in arms[0].exam.shown]
    with commit(target) as temporary:
        draw_comparison(title, prompts, rows, SHOWN[0]).save(temporary, "PNG")


def _print_results(folder: Path, arms: list[Arm], seconds: float) -> None:
    from dreamloom.flows.chain.chain import run_folder
    from dreamloom.flows.project.project import load_project
    from dreamloom.flows.project.workspace import report_path
    from dreamloom.flows.terminal.terminal import duration, print_table, rows_table

    print_table(
        rows_table(
            "What was learned and forgotten",
            [
                {
                    "model": arm.name,
                    "learned": arm.learned,
                    "forgotten": arm.forgotten,
                    f"{CONCEPT}s right": str(arm.exam.concept),
                    "the rest right": str(arm.exam.general),
                    f"of that, now {CONCEPT}s": arm.exam.strays,
                }
                for arm in arms
            ],
        )
    )
    parts = [{"model": arm.name, **arm.exam.parts} for arm in arms]
    print_table(rows_table(f"Which parts of the rest's {arms[0].exam.general.of} captions are right", parts))
    run = run_folder(load_project(folder / PROJECT))
    workspace = folder / "with"
    for label, path in (
        ("comparison", folder / "picture.png"),
        ("dataset", workspace / "dataset"),
        ("samples of training", run / "samples"),
        ("learned and forgotten", run / "learned_forgotten.png"),
        ("model", workspace / "model"),
        ("report", report_path(workspace)),
        ("all drawings", folder / "exam"),
    ):
        print(f"{label:<26}{os.path.relpath(path)}")
    print(f"Took {duration(seconds)}.")
