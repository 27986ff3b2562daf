"""`dreamloom demo`: the whole chain over the demo's own small world, with ground truth and without, side by side.

    demo-world/
      pictures/zorp/ index/ coco/ ffhq/ imagenet/ models/   what a user would have (dreamloom.demo.home)
      project.yaml  without.yaml                            what a user would write
      with/ without/                                        the workspaces that the chain fills
      without.log                                           what was said of the second, which runs beside the first
      exam/                                                 what each model draws (dreamloom.demo.exam)
      picture.png                                           the end of it

What is there stays as it is: a run that was killed goes on, and one that was finished has nothing to do.
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
from dreamloom.base.files import commit, lock
from dreamloom.demo.exam import CONCEPTS, SHOWN, Marks, examine
from dreamloom.demo.folders import CONCEPT
from dreamloom.demo.home import PROJECT, WITHOUT, check_home, make_home
from dreamloom.demo.picture import comparison
from dreamloom.demo.site import serve

EXHIBITS = 1500
"""Pictures of the site that are in its index."""
EXAMINED = 64
"""Pictures that each model draws of the concept, and again of everything else."""
DASHBOARD_PORT = 4200


def demo(*, folder: Path = Path("demo-world"), seed: int | None = None, dashboard: bool = False) -> None:
    """Teach a small model a new thing, with ground truth and without, and see what it forgets: some 4 minutes.

    Parameters
    ----------
    folder
        Where the demo's world and all that is made of it lie.
    seed
        Of both trainings; by default that with which the folder was made, at first 0.
    dashboard
        Run both as Prefect flows, and leave a Prefect server running that shows them.
    """
    begun = time.monotonic()
    check_home(folder)
    with lock(folder):
        port = make_home(folder, seed or 0, EXHIBITS)
        _check_seed(folder / PROJECT, seed)
        with serve(port), _tracking(folder, dashboard) as tracked, _beside(folder / WITHOUT, tracked) as wait:
            finished = _run_chain(folder / PROJECT, tracked) and wait()
        if finished:
            arms = compare(folder, EXAMINED)
            draw(folder / "picture.png", arms)
            _tell(folder, arms, time.monotonic() - begun)


def _check_seed(project: Path, seed: int | None) -> None:
    from dreamloom.flows.project import load_project

    made = load_project(project).train.seed
    if seed is not None and seed != made:
        raise UserError(f"{project} was made with seed {made}; name another --folder for seed {seed}.")


def _run_chain(project: Path, tracked: bool) -> bool:
    """Runs the chain as `dreamloom run` does; False where it was asked to stop before it was through."""
    from dreamloom.flows.commands import run

    print(f"\ndreamloom run {project}", flush=True)
    run(project, track=tracked)
    return _finished(project)


def _finished(project: Path) -> bool:
    from dreamloom.flows.chain import run_folder
    from dreamloom.flows.project import load_project
    from dreamloom.train.run.folder import read_summary

    return read_summary(run_folder(load_project(project))) is not None


@contextmanager
def _beside(project: Path, tracked: bool) -> Iterator[Callable[[], bool]]:
    """Runs the chain in a process of its own, as models so small do not keep two cores busy.

    Yields what waits for its end, prints what it said, and tells whether it was finished. A process that nobody waits
    for is asked to stop, upon which it saves its state.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))  # read when torch is loaded
    command = [
        sys.executable,
        "-m",
        "dreamloom.flows.cli",
        "run",
        str(project.absolute()),
        "--track" if tracked else "--no-track",
    ]
    log = project.with_suffix(".log")
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)

    def wait() -> bool:
        code = process.wait()
        print(f"\ndreamloom run {project}, meanwhile\n{log.read_text().rstrip()}", flush=True)
        if code != 0:
            raise StageFailed(f"{project} failed; {log} says why.")
        return _finished(project)

    print(f"dreamloom run {project} goes on beside this; what it says is in {log}.", flush=True)
    try:
        yield wait
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _tracking(folder: Path, dashboard: bool) -> Iterator[bool]:
    """With a dashboard, a Prefect server that outlives the run; yields whether the chain runs as a flow."""
    if not dashboard:
        yield False
        return
    home = (folder / "prefect").absolute()
    os.environ |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{DASHBOARD_PORT}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--background", "--port", str(DASHBOARD_PORT)]
    started = subprocess.run(command, capture_output=True, text=True)
    said = " ".join(f"{started.stdout} {started.stderr}".split())
    if started.returncode != 0 and "already" not in said:
        raise UserError(f"The Prefect server does not start: {said}")
    _wait_for(f"{os.environ['PREFECT_API_URL']}/health")
    try:
        yield True
    finally:
        print(f"\nThe dashboard is at http://127.0.0.1:{DASHBOARD_PORT}, until it is stopped:")
        print(f"PREFECT_HOME={home} {sys.executable} -m prefect server stop")


def _wait_for(address: str) -> None:
    """Until the server answers: it makes its database first."""
    for _ in range(120):
        with suppress(OSError), urlopen(address, timeout=5):
            return
        time.sleep(0.5)
    raise UserError(f"The Prefect server was started, but {address} does not answer; see whether another has its port.")


# What came of it


@dataclass(frozen=True)
class Arm:
    """One of the models that are compared."""

    name: str
    drawn: Path
    """The folder of what it draws (dreamloom.demo.exam)."""
    marks: Marks
    learned: str
    """As people say it; empty for the model before."""
    forgotten: str


def compare(folder: Path, examined: int) -> list[Arm]:
    """The base model and both arms, on the same held-out images and the same prompts."""
    before = examine(folder / "models" / "stable-diffusion", folder / "exam" / "before", examined)
    arms = [Arm("before", folder / "exam" / "before", before, "", "")]
    for name, file in (("without ground truth", WITHOUT), ("with ground truth", PROJECT)):
        workspace, evaluation = _evaluation(folder, folder / file)
        drawn = folder / "exam" / workspace.name
        marks = examine(workspace / "model", drawn, examined)
        arms.append(Arm(name, drawn, marks, _figure(evaluation["learned"]), _figure(evaluation["forgotten"])))
    return arms


def _evaluation(folder: Path, file: Path) -> tuple[Path, dict[str, Any]]:
    """A project's workspace, and how its model does on the images that project.yaml holds out.

    Without ground truth none is held out, so there is nothing to measure forgetting by; the other arm's is.
    """
    from dreamloom.base.progress import silent
    from dreamloom.flows.chain import run_folder
    from dreamloom.flows.project import load_project
    from dreamloom.flows.train_steps import EvaluateStep
    from dreamloom.train.evaluate.config import as_trained

    project, full = load_project(file), load_project(folder / PROJECT)
    output = project.workspace / "report" / "compared.json"
    run, heldout = run_folder(project), full.workspace / "heldout"
    config = as_trained(project.train, project.evaluate)
    step = EvaluateStep(lambda: run, project.train.base, heldout, config, output)
    step.run(silent)
    return project.workspace, json.loads(output.read_text())["evaluation"]


def _figure(measure: dict[str, Any]) -> str:
    from dreamloom.flows.terminal import percent

    return percent(measure["change"], measure["error"])


def draw(target: Path, arms: list[Arm]) -> None:
    """The demo's last image."""
    rows = [
        (
            arm.name,
            f"{CONCEPT} {arm.marks.concept:.0%}, the rest {arm.marks.general:.0%} right",
            [np.asarray(Image.open(arm.drawn / f"shown-{place}.png")) for place in range(len(SHOWN))],
            arm.marks.shown,
        )
        for arm in arms
    ]
    title = f"What a {CONCEPT} is, learned from 48 images: framed green where the shapes and colours are right"
    with commit(target) as temporary:
        comparison(title, SHOWN, rows, CONCEPTS).save(temporary, "PNG")


def _tell(folder: Path, arms: list[Arm], seconds: float) -> None:
    from dreamloom.flows.chain import run_folder
    from dreamloom.flows.project import load_project
    from dreamloom.flows.report import report_path
    from dreamloom.flows.terminal import duration, print_table, rows_table

    print_table(
        rows_table(
            "What was learned, and what was forgotten",
            [
                {
                    "model": arm.name,
                    "learned": arm.learned,
                    "forgotten": arm.forgotten,
                    f"{CONCEPT}s right": f"{arm.marks.concept:.0%}",
                    "the rest right": f"{arm.marks.general:.0%}",
                    f"of that, now {CONCEPT}s": f"{arm.marks.strays:.0%}",
                }
                for arm in arms
            ],
        )
    )
    run = run_folder(load_project(folder / PROJECT))
    workspace = folder / "with"
    for what, where in (
        ("the image of it", folder / "picture.png"),
        ("dataset", workspace / "dataset"),
        ("samples while it trained", run / "samples"),
        ("learned and forgotten", run / "learned_forgotten.png"),
        ("model", workspace / "model"),
        ("report", report_path(workspace)),
        ("all that was drawn", folder / "exam"),
    ):
        print(f"{what:<26}{os.path.relpath(where)}")
    print(f"Took {duration(seconds)}.")
