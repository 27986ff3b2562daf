"""Runs steps inside a Prefect flow: a task for each step, in it a task for each part, and the final state.

The parts on disk are the cache, so Prefect's own is off. Tasks take functions, and no rows. They run in the thread of
their branch, so that training is in the main thread, where it can catch SIGTERM and save. A state's message is what
people want to know: the outcome in a line, or the sentence of the error, whose traceback is in the log, once.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TagsContext
from prefect.states import Cancelled, Completed, Failed

from dreamloom.base.errors import UserError, error_line, leaves
from dreamloom.base.progress import Progress
from dreamloom.base.stop import stop_all
from dreamloom.flows.chain.steps import Outcome, PartsStep, Step
from dreamloom.flows.server import artifacts
from dreamloom.flows.server.ending import end_in_time, survive_closed_streams
from dreamloom.flows.server.final_states import guard_states, tell_earlier_states
from dreamloom.flows.server.heartbeat import beating
from dreamloom.flows.server.witness import Witness, witness_of_run
from dreamloom.flows.terminal.logs import PRINTED
from dreamloom.flows.terminal.terminal import Terminal, print_line
from dreamloom.scrape.collection.turns import part_runner

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

MAX_PART_TASKS = 200
"""Parts of a step that are tasks; of more, which would slow the server down, the log tells."""
STOP_SECONDS = 5.0
"""How long a run that is broken off waits for its threads to notice, so that their tasks end, too."""


class Stopped(BaseException):
    """Raised in the threads of a run that is broken off."""


@dataclass
class Run:
    """A flow run, as its own process knows it: what it made, however the server is."""

    outcomes: list[Outcome] = field(default_factory=list)
    error: BaseException | None = None
    begun: bool = False
    is_deployed: bool = False
    """Whether a worker started it, which shows its log."""
    witness: Witness | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    open_tasks: set[str] = field(default_factory=set)


run_of_process: ContextVar[Run | None] = ContextVar("run_of_process", default=None)
"""Set by a caller that asks for the result itself, which it then has even if the server does not."""
_run: ContextVar[Run] = ContextVar("run")


def perform(work: Callable[[], Sequence[Outcome]], headline: Callable[[Sequence[Outcome]], str]) -> State[Any]:
    """Does the work of a flow and returns its final state. Goes on where the server is away.

    Args:
        work: runs steps by `run_parts`; the last outcome is not `finished` where it was asked to stop.
        headline: says in a line what came of it.
    """
    run = run_of_process.get() or Run()
    run.begun, run.is_deployed = True, _is_deployed()
    token = _run.set(run)
    if run.is_deployed:  # a worker reads what the run prints, and may go
        survive_closed_streams()
    try:
        # no tag of the run is its tasks': the engine would ask the server for the limit of each, and wait
        with TagsContext(current_tags=set()), beating(), witness_of_run() as witness:
            run.witness = witness
            guard_states(witness, nobody_waits=run.is_deployed)
            witness.tell("earlier", tell_earlier_states)
            if run.is_deployed:
                end_in_time(lambda: witness.away)
            return _ending(run, work, headline)
    finally:
        _run.reset(token)


def _is_deployed() -> bool:
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None


class _Kept:
    """Keeps the exception that ends its block, to be raised again once the server was told of it."""

    error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, Exception):
            self.error = error
            return True
        return False


def _ending(
    run: Run, work: Callable[[], Sequence[Outcome]], headline: Callable[[Sequence[Outcome]], str]
) -> State[Any]:
    try:
        with _Kept() as kept:
            run.outcomes = list(work())
    except BaseException as error:
        run.error = error
        _stop_threads(run)
        if type(error) is KeyboardInterrupt:
            return Cancelled(message="Stopped by Ctrl-C; what is finished stays, and the next run goes on.")
        raise
    if kept.error is not None:
        run.error = kept.error
        is_expected = all(isinstance(each, UserError) for each in leaves(kept.error))
        _log.error("%s", sentences(kept.error), exc_info=None if is_expected else kept.error, extra=PRINTED)
        return Failed(message=sentences(kept.error))
    last = run.outcomes[-1]
    if not last.finished:
        return Cancelled(message=_line(last.message))
    return Completed(message=headline(run.outcomes), data=last.message)


def run_parts(step: Step, terminal: Terminal) -> Outcome:
    """Runs a step as a task, and each part that it makes as a task within. A part that fails does not stop the others.

    Raises:
        ExceptionGroup: parts failed; the others are made.
        StageFailed: all parts together have too little result.
    """
    run = _run.get()
    charts = artifacts.StepArtifacts(step)
    with terminal.watch(step.title) as shown:

        def progress(done: int, total: int | None, note: str = "") -> None:
            if run.stopping.is_set():
                raise Stopped
            charts.progress(done, total, note)
            shown(done, total, note)

        outcome = _as_task(step.title, partial(_run_step, step, progress), lambda outcome: outcome)
    charts.finish(outcome)
    if not run.is_deployed:
        print_line(outcome.message)
    return outcome


def _run_step(step: Step, progress: Progress) -> Outcome:
    if not isinstance(step, PartsStep):
        return step.run(progress)
    numbers = iter(range(MAX_PART_TASKS))

    def run_part(part: str, make: Callable[[], Result]) -> Result:
        if next(numbers, None) is None:
            return make()
        return _as_task(f"{step.title} {part}", make, lambda _: None)

    token = part_runner.set(run_part)
    try:
        return step.run(progress)
    finally:
        part_runner.reset(token)


def _as_task(name: str, work: Callable[[], Result], outcome_of: Callable[[Result], Outcome | None]) -> Result:
    """Does work as a task. Returns what it returns, and raises what it raises.

    Args:
        outcome_of: what the task's final state tells of the result.
    """
    kept, results = _Kept(), list[Result]()
    open_tasks = _run.get().open_tasks

    def attempt() -> State[Any]:
        try:
            with kept:
                results.append(work())
        except Stopped:
            return Cancelled(message="broken off")
        if kept.error is not None:
            return Failed(message=sentences(kept.error))
        outcome = outcome_of(results[0])
        if outcome is not None and not outcome.finished:
            return Cancelled(message=_line(outcome.message))
        return Completed(message=None if outcome is None else _line(outcome.message))

    open_tasks.add(name)
    try:
        _work(name, attempt, return_state=True)
    finally:
        open_tasks.discard(name)
    if kept.error is not None:
        raise kept.error
    if not results:
        raise Stopped
    return results[0]


@task(name="step", cache_policy=NO_CACHE, task_run_name="{name}")
def _work(name: str, attempt: Callable[[], State[Any]]) -> State[Any]:
    return attempt()


def _stop_threads(run: Run) -> None:
    """Breaks off what other threads do, and waits a moment until their tasks have ended."""
    run.stopping.set()
    stop_all(STOP_SECONDS)
    deadline = time.monotonic() + STOP_SECONDS
    while run.open_tasks and time.monotonic() < deadline:
        time.sleep(0.05)


def sentences(error: BaseException) -> str:
    """Returns the sentences of an error, those of a group once each."""
    return "\n".join(dict.fromkeys(map(error_line, leaves(error))))


def _line(message: str) -> str:
    """An outcome's message as one line."""
    return " ".join(message.split())
