"""Runs a step inside a Prefect flow: a task for each stale part, and artifacts of the result.

The parts on disk are the cache, so Prefect's own is off. Tasks take steps, which hold paths and configs and no rows.
They run in the thread of their branch, so that training is in the main thread, where it can catch SIGTERM and save.
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
    """Makes the stale parts of a step. A part that fails does not stop the others.

    Raises:
        ExceptionGroup: parts failed; the others are made.
        StageFailed: all parts together have too little result.
    """
    stale = step.stale_parts()
    outcomes, errors = list[Outcome](), list[Exception]()
    for part in stale:
        state = make_part(step, part, terminal, return_state=True)
        result = state.result(raise_on_failure=False)
        if isinstance(result, StageFailed) and part != WHOLE:  # all parts together are judged below
            continue
        if isinstance(result, StageFailed):
            raise result
        if isinstance(result, Exception):
            errors.append(result)
            continue
        outcomes.append(result)
        if not result.finished:
            return _printed(result)
    if errors:
        raise ExceptionGroup(f"{step.title}: {len(errors)} of {len(stale)} parts failed", errors)
    if stale:
        artifacts.publish_sheet(f"{step.title} images", step.images(), f"Some images of {step.title}")
    return _printed(outcomes[0] if stale == [WHOLE] else _all_parts(step, stale, outcomes))


@task(cache_policy=NO_CACHE, task_run_name="{step.title} {part}")
def make_part(step: Step, part: str, terminal: Terminal) -> Outcome:
    """Makes one part of a step, and shows its progress in the dashboard and in the terminal."""
    charts = artifacts.ChartPublisher(step.charts)
    artifact = artifacts.ArtifactProgress(f"{step.title} {part}", charts.publish)
    with terminal.watch(f"{step.title} {part}") as terminal_progress:

        def progress(done: int, total: int | None, note: str = "") -> None:
            artifact(done, total, note)
            terminal_progress(done, total, note)

        outcome = step.run(progress, [part])
    if outcome.finished:
        artifact.finish(outcome.message)
    return outcome


def _all_parts(step: Step, stale: Sequence[str], outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome over all parts of a step, existing ones included. Removes parts that the step no longer has."""
    outcome = step.run(silent)
    if outcome.summary is None or not stale:
        return outcome
    outcome.summary.seconds = sum(part.summary.seconds for part in outcomes if part.summary is not None)
    outcome.summary.parts_done, outcome.summary.parts_before = len(stale), outcome.summary.parts_before - len(stale)
    return counted(step.stage, step.source, outcome.summary)


def _printed(outcome: Outcome) -> Outcome:
    if deployment.id is None:  # a worker shows the log
        print_line(outcome.message)
    return outcome
