"""The commands over a whole project, and the one that only looks."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dreamloom.base import processes
from dreamloom.base.cpu import keep_freed_memory
from dreamloom.base.errors import UserError
from dreamloom.base.text import printable
from dreamloom.flows import api, chain
from dreamloom.flows.contents import Captions, captions_of_workspace
from dreamloom.flows.project import Project, load_project
from dreamloom.flows.report import report_path
from dreamloom.flows.steps import Outcome
from dreamloom.flows.tables import balance, funnel
from dreamloom.flows.terminal import Terminal, funnel_table, print_table, rows_table

PROJECT = Path("project.yaml")


def run(
    project: Path = PROJECT,
    *,
    track: Annotated[bool | None, Parameter(negative="--no-track", show_default=False)] = None,
) -> None:
    """Make everything that project.yaml says and that is not there yet.

    Parameters
    ----------
    project
        The project's file, or the folder it lies in.
    track
        Run it as a Prefect flow, which a dashboard shows. By default where PREFECT_API_URL is set; with --track and no
        server, Prefect starts one for as long as the run takes.
    """
    if processes.world_size() > 1:
        raise UserError("run is for one process; have several train WORKSPACE/dataset by `dreamloom train`.")
    loaded = load_project(project)
    if track or (track is None and "PREFECT_API_URL" in os.environ):
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # what matters is printed here
        from dreamloom.flows.prefect_flows import run_tracked

        keep_freed_memory()
        outcomes = run_tracked(project.absolute())
    else:
        outcomes = list(api.run(loaded).outcomes)
    _close(loaded, outcomes)


def plan(project: Path = PROJECT) -> None:
    """Say what run would do: what is there, what would be made, how many steps, how long. Changes nothing.

    Parameters
    ----------
    project
        The project's file, or the folder it lies in.
    """
    from dreamloom.flows import plan as planning

    loaded = load_project(project)
    print(f"{loaded.name}: {near(loaded.workspace)}\n")
    print_table(rows_table("What the sources have", planning.source_rows(loaded)))
    steps = planning.plan_steps(loaded)
    print_table(rows_table("What run would make", planning.step_rows(steps)))
    training = planning.plan_train(loaded)
    if training is not None:
        planning.print_training(training)
    say_lengths(captions_of_workspace(loaded.workspace, list(loaded.sources)), loaded.train.base)
    if all(step.stale_parts == [] for step in steps):
        print("Nothing to do: everything is as project.yaml says.")


def show(folder: Path, *, image: str | None = None, output: Path | None = None) -> None:
    """A table and a contact sheet of a collection, a workspace or a training folder.

    Parameters
    ----------
    folder
        What to look at.
    image
        Tell the history of one image instead: its file name, or its key or the beginning of it.
    output
        Where to write the contact sheet; by default dreamloom-NAME.png, here.
    """
    from dreamloom.flows import showing

    if image is not None:
        from dreamloom.curate.trace import trace

        for what, value in trace(folder, image):
            print(f"{what:<20}{printable(value)}")
        return
    for table in showing.tables(folder):
        print_table(table)
    say_lengths(showing.captions_of(folder), None)
    sheet = showing.write_sheet(folder, output or Path(f"dreamloom-{folder.absolute().name}.png"))
    print(f"contact sheet: {sheet}" if sheet else "no images yet")


def say_lengths(captions: Captions, model: str | None) -> None:
    """How many captions the text encoder will cut; nothing where there is no caption yet.

    Args:
        model: whose tokens they are; None: CLIP's own.
    """
    from dreamloom.caption.tokens import load_tokenizer, measure_captions

    if captions:
        with Terminal() as terminal, terminal.watch("count tokens") as progress:
            print(printable(str(measure_captions(captions, load_tokenizer(model), progress))))


def near(path: Path) -> Path:
    """A path as one would type it here: relative, where it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _close(project: Project, outcomes: list[Outcome]) -> None:
    """The end of a run: where the images went, and where to look."""
    if not outcomes[-1].finished:
        return
    if not any(outcome.changed for outcome in outcomes):
        print("Nothing to do: everything is as project.yaml says.")
    else:
        print_table(funnel_table(funnel(project.workspace, project.sources)))
        print_table(rows_table("What is trained on", balance(project.workspace)))
    run = chain.run_folder(project)
    places = {
        "training folder": project.workspace / "dataset",
        "samples": run / "samples",
        "learned, forgotten": run / "learned_forgotten.png",
        "model": project.workspace / "model",
        "report": report_path(project.workspace),
    }
    for what, path in places.items():
        if path.exists():
            print(f"{what:<20}{near(path)}")
