"""The chain over a whole project as a Prefect flow."""

from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled

from dreamloom.base.errors import UserError
from dreamloom.flows import artifacts, chain, events
from dreamloom.flows.changes import read_changes
from dreamloom.flows.missed_runs import skip_missed_runs
from dreamloom.flows.project import Project, load_project
from dreamloom.flows.selection import ALL, Selection, StageName, select
from dreamloom.flows.steps import Outcome
from dreamloom.flows.tables import balance_rows, funnel, funnel_rows
from dreamloom.flows.terminal import Terminal
from dreamloom.flows.tracking import run_parts


def _run_name() -> str:
    """The project's name; its path where it can't be read, which the run then reports."""
    path = Path(flow_run.parameters["project"])
    try:
        return load_project(path).name
    except UserError:
        return str(path)


@flow(name="end-to-end", flow_run_name=_run_name)
def end_to_end(
    project: Path, only: tuple[StageName, ...] = (), until: StageName | None = None, sources: tuple[str, ...] = ()
) -> list[Outcome] | State[object]:
    """Makes what a project.yaml asks for and is not there yet.

    Args:
        project: the file; an absolute path where a worker runs the flow.
        only: run these stages alone, on what earlier ones made; empty: all.
        until: the last stage to run; null: all.
        sources: run the stages of one source for these alone; empty: for all.
    """
    skip_missed_runs()
    try:
        return run_project(load_project(project), Selection(only, until, sources))
    finally:
        skip_missed_runs()


def run_project(project: Project, selection: Selection) -> list[Outcome] | State[object]:
    """Runs the selected steps of a project inside a flow, and publishes the funnel and the balance.

    Returns:
        The outcomes; a cancelled state where training was asked to stop.
    """
    before = artifacts.project_name.set(project.name)
    with Terminal() as terminal:
        try:
            selected = select(project, selection)
            outcomes = chain.run(project, lambda step: run_parts(step, terminal), selected)
            events.tell_success(project, outcomes)
        except Exception as error:
            events.tell_failure(project, error)
            raise
        finally:
            _publish(project)
            artifacts.project_name.reset(before)
    if not outcomes[-1].finished:
        return Cancelled(message=outcomes[-1].message)
    return outcomes


def run_tracked(project: Path, selection: Selection = ALL) -> list[Outcome]:
    """Runs the flow in this process. Its server is the one at PREFECT_API_URL, or one that Prefect starts meanwhile.

    Raises:
        UserError: no server answers at PREFECT_API_URL.
        Exception: whatever the chain raises.
    """
    try:
        only, sources = tuple(selection.only), tuple(selection.sources)
        state = end_to_end(project, only, selection.until, sources, return_state=True)
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise UserError(
            f"{error} Start it (prefect server start), unset PREFECT_API_URL, or give --no-track."
        ) from None
    if state.is_cancelled():
        return [Outcome(state.message or "", changed=True, finished=False)]
    result = state.result()
    assert isinstance(result, list)
    return result


def _publish(project: Project) -> None:
    rows = funnel_rows(funnel(project.workspace, project.sources))
    artifacts.publish_table("funnel", rows, "Where the images went")
    if (project.workspace / "dataset.parquet").exists():
        artifacts.publish_table("balance", balance_rows(project.workspace), "What is trained on")
    if changed := read_changes(project.workspace).get("Images"):
        artifacts.publish_table("changes", changed, "What changed since the last run")
