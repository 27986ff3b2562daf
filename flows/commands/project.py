"""The commands `run` and `plan`, which are about a whole project, and `show`."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from dreamloom.base import processes
from dreamloom.base.cpu import keep_freed_memory
from dreamloom.base.errors import UserError
from dreamloom.base.files.tree_state import looking_once
from dreamloom.base.stage import PathKind
from dreamloom.base.stop import Unfinished
from dreamloom.base.text import printable
from dreamloom.flows import api
from dreamloom.flows.chain import chain
from dreamloom.flows.chain.collection_users import note_file, warn_of_shared_workspace
from dreamloom.flows.chain.preflight import check_before_run
from dreamloom.flows.chain.selection import Selection, StageName, select
from dreamloom.flows.chain.steps import Outcome
from dreamloom.flows.commands.adopt import settle_hand_changes, warn_of_hand_changes
from dreamloom.flows.plan.caption_lengths import caption_lengths, print_lengths
from dreamloom.flows.project.project import Project, load_project
from dreamloom.flows.project.workspace import PROJECT, relative_to_cwd, report_path
from dreamloom.flows.report.contents import Captions, captions_of_workspace, captions_recipe
from dreamloom.flows.terminal.json_output import AsJson, print_json
from dreamloom.flows.terminal.tables import balance_rows, funnel
from dreamloom.flows.terminal.terminal import Terminal, funnel_table, print_table, rows_table
from dreamloom.train.data.caption_notes import note_captions
from dreamloom.train.data.notes import Notes

if TYPE_CHECKING:
    from dreamloom.flows.plan.forecast import Sizes

SEVERAL = Parameter(consume_multiple=True, negative="")


@looking_once()
def run(
    project: Path = PROJECT,
    *,
    only: Annotated[tuple[StageName, ...], SEVERAL] = (),
    until: StageName | None = None,
    source: Annotated[tuple[str, ...], SEVERAL] = (),
    adopt: Annotated[bool, Parameter(negative="")] = False,
    track: Annotated[bool | None, Parameter(negative="--no-track", show_default=False)] = None,
) -> None:
    """Make what project.yaml asks for and is not there yet.

    Parameters
    ----------
    project
        The project's file, or its folder.
    only
        Run these stages alone, on what earlier ones made.
    until
        Run the stages up to this one.
    source
        Run the stages of a source for these sources alone, with --only or --until.
    adopt
        Make decisions of what was changed by hand in the training folder; see dreamloom adopt.
    track
        Run as a Prefect flow, shown in its dashboard; the default where PREFECT_API_URL is set. Without a server,
        Prefect starts one for the time of the run.
    """
    if processes.world_size() > 1:
        raise UserError("run uses one process; to train with several, run `dreamloom train` on WORKSPACE/dataset.")
    loaded = load_project(project)
    selection = Selection(only, until, source)
    select(loaded, selection)
    file = project / PROJECT if project.is_dir() else project
    for warning in warn_of_shared_workspace(file, loaded):
        print(f"warning: {printable(warning)}")
    note_file(file, loaded.workspace)
    settle_hand_changes(project, loaded.workspace, adopt)
    if selection.is_whole:
        check_before_run(loaded)
    outcomes = None
    if track or (track is None and "PREFECT_API_URL" in os.environ):
        outcomes = _run_tracked(loaded, project, selection)
    if outcomes is None:
        outcomes = list(api.run(loaded, only=only, until=until, sources=source).outcomes)
    if outcomes[-1:] and not outcomes[-1].finished:
        raise Unfinished
    if selection.is_whole:
        _print_results(loaded, outcomes)


@looking_once()
def plan(
    project: Path = PROJECT, *, probe: Annotated[bool, Parameter(negative="")] = False, as_json: AsJson = False
) -> None:
    """Show what run would do, and why: images, steps, sizes, time. Changes nothing.

    Parameters
    ----------
    project
        The project's file, or its folder.
    probe
        Measure how fast this machine trains, in a few steps on noise, and remember it.
    as_json
        Print it as JSON.
    """
    from dreamloom.flows.plan import plan as planning
    from dreamloom.flows.plan.forecast import measure_sources
    from dreamloom.flows.plan.planned_steps import plan_steps

    loaded = load_project(project)
    if probe:
        from dreamloom.flows.project.speeds import probe as measure

        with Terminal() as terminal, terminal.watch("probe") as progress:
            measure(loaded.train_config(), loaded.workspace, progress)
    sizes, steps = measure_sources(loaded), plan_steps(loaded)
    if not as_json:
        print(f"{loaded.name}: {relative_to_cwd(loaded.workspace)}\n")
        print_table(rows_table("Sources", planning.source_rows(loaded, sizes)))
        print_table(rows_table("Steps of the run", planning.step_rows(steps)))
    planned = planning.plan_project(loaded, steps, sizes)
    notes = [] if planned.training and not planned.forecast else _caption_notes(loaded, sizes)
    changed = warn_of_hand_changes(project, loaded.workspace)
    file = project / PROJECT if project.is_dir() else project
    warnings = [*warn_of_shared_workspace(file, loaded), *changed, *planned.warnings]
    read, recipe_of_captions = _captions_of(loaded)
    lengths = caption_lengths(read, loaded.train.base, recipe_of_captions, loaded.train.t5_length)
    nothing_to_do = all(step.stale_parts == [] for step in steps) and not changed
    if as_json:
        about = {"notes": notes, "warnings": warnings, "captions": lengths, "nothing_to_do": nothing_to_do}
        print_json(planning.content(loaded, steps, sizes, planned) | about)
        return
    planning.print_plan(planned, loaded)
    for sentence in notes:
        print(sentence)
    for warning in warnings:
        print(f"warning: {printable(warning)}")
    print_lengths(lengths)
    if nothing_to_do:
        print("Nothing to do: everything is as project.yaml says.")


def _captions_of(project: Project) -> tuple[Callable[[], Captions], str | None]:
    sources = list(project.sources)
    return partial(captions_of_workspace, project.workspace, sources), captions_recipe(project.workspace, sources)


def _caption_notes(project: Project, sizes: "Sizes") -> list[str]:
    from dreamloom.flows.plan.forecast import expected_captions

    notes = Notes()
    known = captions_of_workspace(project.workspace, list(project.sources))
    note_captions([*known, *expected_captions(project, sizes)], notes)
    return list(notes.sentences())


def show(
    folder: Annotated[Path, PathKind.ADDRESS],
    *,
    image: str | None = None,
    output: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Show a collection, workspace or training folder: a table, and a contact sheet of its images.

    Parameters
    ----------
    folder
        The collection, workspace or training folder.
    image
        Show the history of this image instead: its file name, or its key or the beginning of the key.
    output
        File of the contact sheet; by default dreamloom-NAME.png in the current folder.
    as_json
        Print it as JSON.
    """
    from dreamloom.flows.report import showing

    if image is not None:
        from dreamloom.curate.trace import trace

        lines = list(trace(folder, image))
        if as_json:
            print_json([{"what": label, "found": value} for label, value in lines])
            return
        for label, value in lines:
            print(f"{label:<20}{printable(value)}")
        return
    content = showing.content(folder)
    if not as_json:
        for table in showing.tables(content, folder):
            print_table(table)
    lengths = caption_lengths(partial(showing.captions_of, folder), None, captions_recipe(folder))
    sheet = showing.write_sheet(folder, output or Path(f"dreamloom-{folder.absolute().name}.png"))
    if as_json:
        print_json(content | {"captions": lengths, "contact_sheet": sheet})
        return
    print_lengths(lengths)
    print(f"contact sheet: {sheet}" if sheet else "no images yet")


def _run_tracked(project: Project, file: Path, selection: Selection) -> list[Outcome] | None:
    """Runs the chain as a Prefect flow; returns None where no server answers."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # the outcomes are printed anyway
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "dreamloom")
    use_own_prefect_home(project.workspace)
    from dreamloom.flows.server.prefect_flows import run_tracked

    keep_freed_memory()
    return run_tracked(file.absolute(), selection)


def use_own_prefect_home(workspace: Path) -> None:
    """Lets Prefect keep its files in the workspace, unless the user has a PREFECT_HOME or profiles of his own."""
    if not (Path.home() / ".prefect" / "profiles.toml").exists():
        os.environ.setdefault("PREFECT_HOME", str(workspace.absolute() / "prefect"))
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def _print_results(project: Project, outcomes: list[Outcome]) -> None:
    """Prints where the images went, and where the results lie."""
    if not any(outcome.changed for outcome in outcomes):
        print("Nothing to do: everything is as project.yaml says.")
    else:
        print_table(funnel_table(funnel(project.workspace, project.sources)))
        print_table(rows_table("What is trained on", balance_rows(project.workspace)))
    run = chain.run_folder(project)
    results = {
        "training folder": project.workspace / "dataset",
        "samples": run / "samples",
        "learned, forgotten": run / "learned_forgotten.png",
        "model": project.workspace / "model",
        "report": report_path(project.workspace),
    }
    for label, path in results.items():
        if path.exists():
            print(f"{label:<20}{relative_to_cwd(path)}")
    if project.store is not None:
        where = relative_to_cwd(project.workspace)
        print(f"{'store':<20}{project.store} (collections and the training set; the rest stays in {where})")
