"""How Prefect runs a step: a task for each part that is to be made, and artifacts of what came of it.

Parts on disk are the cache, so Prefect's own stays off. Tasks take steps (paths and configs), never rows, and run in
the thread of their branch: training is then in the main thread, where it can catch SIGTERM and save.
"""

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment

from dreamloom.base.errors import StageFailed
from dreamloom.base.progress import silent
from dreamloom.flows import artifacts
from dreamloom.flows.steps import WHOLE, Outcome, Step, counted
from dreamloom.flows.terminal import Terminal, print_line


def run_parts(step: Step, terminal: Terminal) -> Outcome:
    """Makes what of a step is stale, inside a flow. A part that fails does not stop the others.

    Raises:
        ExceptionGroup: parts failed; the others are made.
        StageFailed: all parts together came to too little.
    """
    stale = step.stale_parts()
    outcomes, failed = list[Outcome](), list[Exception]()
    for part in stale:
        state = make_part(step, part, terminal, return_state=True)
        result = state.result(raise_on_failure=False)
        if isinstance(result, StageFailed):  # its rows are there; whether all parts came to enough is asked below
            continue
        if isinstance(result, Exception):
            failed.append(result)
            continue
        outcomes.append(result)
        if not result.finished:
            return _said(result)
    if failed:
        raise ExceptionGroup(f"{step.title}: {len(failed)} of {len(stale)} parts failed", failed)
    if stale:
        artifacts.publish_sheet(f"{step.title} images", step.images(), f"Some images of {step.title}")
    return _said(outcomes[0] if stale == [WHOLE] else _whole(step, stale, outcomes))


@task(cache_policy=NO_CACHE, task_run_name="{step.title} {part}")
def make_part(step: Step, part: str, terminal: Terminal) -> Outcome:
    """Makes one part."""
    charts = artifacts.ChartPublisher(step.charts)
    shown = artifacts.ArtifactProgress(f"{step.title} {part}", charts.publish)
    with terminal.watch(f"{step.title} {part}") as line:

        def progress(done: int, total: int | None, note: str = "") -> None:
            shown(done, total, note)
            line(done, total, note)

        outcome = step.run(progress, [part])
    if outcome.finished:
        shown.finish(outcome.message)
    return outcome


def _whole(step: Step, stale: Sequence[str], made: Sequence[Outcome]) -> Outcome:
    """All parts of a step, also those that were there; parts that no plan has a place for any more are removed."""
    outcome = step.run(silent)
    if outcome.summary is None or not stale:
        return outcome
    outcome.summary.seconds = sum(part.summary.seconds for part in made if part.summary is not None)
    outcome.summary.parts_done, outcome.summary.parts_before = len(stale), outcome.summary.parts_before - len(stale)
    return counted(step.stage, step.source, outcome.summary)


def _said(outcome: Outcome) -> Outcome:
    if deployment.id is None:  # a worker shows the log
        print_line(outcome.message)
    return outcome
