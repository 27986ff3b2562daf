"""The chain over a whole project as a Prefect flow."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
from prefect import flow, tags
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    get_current_settings,
    temporary_settings,
)

from dreamloom.base.errors import UserError
from dreamloom.flows.chain import chain
from dreamloom.flows.chain.headline import headline
from dreamloom.flows.chain.selection import ALL, Selection, StageName, select
from dreamloom.flows.chain.steps import Outcome, Step
from dreamloom.flows.project.project import Project, load_project
from dreamloom.flows.report.changes import read_changes
from dreamloom.flows.server import artifacts, events
from dreamloom.flows.server.automations import HEARTBEAT_SECONDS, TAG
from dreamloom.flows.server.ending import settle
from dreamloom.flows.server.missed_runs import skip_missed_runs
from dreamloom.flows.server.run_page import publish_images, publish_page
from dreamloom.flows.server.tracking import Run, perform, run_of_process, run_parts, sentences
from dreamloom.flows.server.witness import REQUEST_SECONDS, Witness
from dreamloom.flows.terminal.tables import balance_rows, dropped_rows, funnel
from dreamloom.flows.terminal.terminal import Terminal, duration
from dreamloom.train.evaluate.results import read_evaluation

_log = logging.getLogger(__name__)


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
) -> State[object]:
    """Makes what a project.yaml asks for and is not there yet.

    Args:
        project: the file; an absolute path where a worker runs the flow.
        only: run these stages alone, on what earlier ones made; empty: all.
        until: the last stage to run; null: all.
        sources: run the stages of one source for these alone; empty: for all.
    """

    def work() -> list[Outcome]:
        _skip_missed_runs()
        try:
            return _run_chain(load_project(project), Selection(only, until, sources))
        finally:
            _skip_missed_runs()

    return perform(work, lambda outcomes: _headline(load_project(project), outcomes))


def run_project(load: Callable[[], Project], selection: Selection) -> State[object]:
    """Runs the selected steps of a project inside a flow, and publishes the funnel and the balance.

    Args:
        load: reads the project; what it raises is the run's error.
        selection: which steps.

    Returns:
        The final state: its message is the headline, or the sentence of the error.
    """
    return perform(lambda: _run_chain(load(), selection), lambda outcomes: _headline(load(), outcomes))


def run_tracked(project: Path, selection: Selection = ALL) -> list[Outcome] | None:
    """Runs the flow in this process. Its server is the one at PREFECT_API_URL, or one that Prefect starts meanwhile.

    Returns:
        The outcomes of its steps; None where no server answered, so that nothing was begun.

    Raises:
        Exception: whatever the chain raises.
    """
    url = PREFECT_API_URL.value()
    if url and not _answers(url):
        _log.warning("The Prefect server at %s does not answer; the run is not tracked.", url)
        return None
    run = Run()
    logging.raiseExceptions = False  # else Prefect's handler prints a traceback a second where the server is away
    token = run_of_process.set(run)
    try:
        with tags(TAG), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: _heartbeat()}):
            end_to_end(project, tuple(selection.only), selection.until, tuple(selection.sources), return_state=True)
    except (RuntimeError, httpx.HTTPError) as error:  # of Prefect, as it does not reach its server
        if not run.begun:
            _log.warning("No Prefect server answers (%s); the run is not tracked.", error)
            return None
        _log.debug("Prefect failed after the run had begun", exc_info=error)
    finally:
        run_of_process.reset(token)
        settle(run.witness is None or run.witness.away)
    if run.error is not None:
        raise run.error
    return run.outcomes


def _answers(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url.rstrip('/')}/health", timeout=REQUEST_SECONDS).status_code < 500
    except httpx.HTTPError:
        return False


def _heartbeat() -> int | None:
    """The seconds between heartbeats: as somebody set them, or what the automations expect."""
    flows = get_current_settings().flows
    return flows.heartbeat_frequency if "heartbeat_frequency" in flows.model_fields_set else HEARTBEAT_SECONDS


def _run_chain(project: Project, selection: Selection) -> list[Outcome]:
    before = artifacts.project_name.set(project.name)
    outcomes: list[Outcome] = []
    done: list[dict[str, str]] = []

    def perform(step: Step, terminal: Terminal) -> Outcome:
        began = time.monotonic()
        outcome = run_parts(step, terminal)
        took = duration(time.monotonic() - began)
        done.append({"step": step.title, "took": took, "what came of it": _what_came(step, outcome)})
        return outcome

    try:
        with Terminal() as terminal:
            outcomes = chain.run(project, lambda step: perform(step, terminal), select(project, selection))
        publish_page(project, done, _headline(project, outcomes))
        events.tell_success(project, outcomes)
        return outcomes
    except Exception as error:
        publish_page(project, done, sentences(error))
        events.tell_failure(project, error)
        raise
    finally:
        if not outcomes or any(outcome.changed for outcome in outcomes):
            _publish(project)
        artifacts.project_name.reset(before)


def _what_came(step: Step, outcome: Outcome) -> str:
    """The outcome's message without its columns: "6 in, 6 kept; there already"."""
    message = "\n".join(" ".join(line.split()) for line in outcome.message.splitlines())
    return re.sub(r"^([\d,]+ in) ", r"\1, ", message.removeprefix(step.title).strip())


def _skip_missed_runs() -> None:
    Witness.current().tell("missed runs", lambda _: skip_missed_runs())


def _headline(project: Project, outcomes: Sequence[Outcome]) -> str:
    if not (project.workspace / "dataset.parquet").exists():
        return headline(outcomes, None)
    path = chain.evaluation_path(project) if project.evaluate is not None else chain.run_folder(project)
    return headline(outcomes, read_evaluation(path) if path.exists() else None)


def _publish(project: Project) -> None:
    rows = dropped_rows(funnel(project.workspace, project.sources))
    artifacts.publish_table("funnel", rows, "Where the images went")
    if (project.workspace / "dataset.parquet").exists():
        artifacts.publish_table("balance", balance_rows(project.workspace), "What is trained on")
        publish_images(project)
    if changed := read_changes(project.workspace).get("Images"):
        artifacts.publish_table("changes", changed, "What changed since the last run")
