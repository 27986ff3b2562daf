"""The final state of a flow run arrives at the server, if not at once, then with the next run.

Prefect's engine asks its client to set the state, and fails where the server does not answer. Here the client notes the
state in a file then, below PREFECT_HOME. The next run tells it, and ends the tasks of runs that were killed.
"""

import contextvars
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus, StateAcceptDetails
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, PREFECT_HOME, temporary_settings
from prefect.states import Crashed

from dreamloom.base.files.atomic import commit_text
from dreamloom.flows.server.automations import TAG
from dreamloom.flows.server.witness import REQUEST_SECONDS, Witness, is_away

PATIENCE_SECONDS = 5.0
"""How long a run tries to tell its state to a server that can't work at the moment, as its database is locked."""
WORKER_PATIENCE_SECONDS = 60.0
"""The same for a worker's run, for which nobody waits, also where the server is gone."""
_UNSETTLED = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING, StateType.CRASHED)
"""States in which a run is at the server whose final state did not arrive."""

Answer = OrchestrationResult[Any]


def guard_states(witness: Witness, nobody_waits: bool) -> None:
    """Makes the engine of this flow run survive a server that is away when a state is to be set.

    Args:
        witness: of the run.
        nobody_waits: whether there is time to ask a server that is away again and again.
    """
    context = FlowRunContext.get()
    assert context is not None and isinstance(context.client, SyncPrefectClient)
    send = context.client.set_flow_run_state

    def set_state(flow_run_id: UUID | str, state: State[Any], force: bool = False) -> Answer:
        if nobody_waits or not witness.away:
            answer = _try(lambda: send(flow_run_id, state, force), nobody_waits)
            if answer is not None:
                return answer
        witness.away = True
        witness.warn("its final state is told by the next run")
        if state.is_final():
            _note(witness.api_url, flow_run_id, state)
        return OrchestrationResult(state=state, status=SetStateStatus.ACCEPT, details=StateAcceptDetails())

    context.client.set_flow_run_state = set_state  # type: ignore[method-assign]


def tell_earlier_states(client: SyncPrefectClient) -> None:
    """Tells the final states that earlier runs noted, and ends the tasks of runs that have ended without them."""
    for file in sorted(_folder().glob("*.json")):
        noted = json.loads(file.read_text(encoding="utf-8"))
        if noted["api_url"] == str(client.api_url):
            _tell(client, noted)
            file.unlink(missing_ok=True)
    _end_tasks(client)


def _try(send: Callable[[], Answer], nobody_waits: bool) -> Answer | None:
    """Returns what the server answers; None: it is away. Raises what it refuses with."""
    answers, errors = list[Answer](), list[BaseException]()
    seconds = WORKER_PATIENCE_SECONDS if nobody_waits else PATIENCE_SECONDS

    def attempt() -> None:
        deadline = time.monotonic() + seconds
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            while not answers:
                try:
                    answers.append(send())
                except httpx.HTTPError as error:
                    if not is_away(error):
                        errors.append(error)
                        return
                    is_gone = isinstance(error, httpx.ConnectError) and not nobody_waits
                    if is_gone or time.monotonic() >= deadline:
                        return
                    time.sleep(1.0)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(attempt,), daemon=True)
    thread.start()
    thread.join(seconds + REQUEST_SECONDS)
    if errors:
        raise errors[0]
    return answers[0] if answers else None


def _note(api_url: str, flow_run_id: UUID | str, state: State[Any]) -> None:
    noted = {"api_url": api_url, "flow_run": str(flow_run_id), "type": state.type, "name": state.name}
    _folder().mkdir(parents=True, exist_ok=True)
    commit_text(_folder() / f"{flow_run_id}.json", json.dumps(noted | {"message": state.message}))


def _folder() -> Path:
    return Path(PREFECT_HOME.value()).expanduser() / "dreamloom" / "final_states"


def _tell(client: SyncPrefectClient, noted: dict[str, Any]) -> None:
    flow_run_id = UUID(noted["flow_run"])
    try:
        before = client.read_flow_run(flow_run_id).state
        if before is None or before.type in _UNSETTLED:
            state: State[Any] = State(type=StateType(noted["type"]), name=noted["name"], message=noted["message"])
            client.set_flow_run_state(flow_run_id, state, force=True)
    except ObjectNotFound:  # the run, or its whole server, was deleted
        return


def _end_tasks(client: SyncPrefectClient) -> None:
    """Ends tasks that are Running though their run was killed: nobody was left to say that they ended."""
    ended = FlowRunFilterStateType(any_=[StateType.CRASHED, StateType.CANCELLED])
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=ended), tags=FlowRunFilterTags(all_=[TAG])),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
        ),
    )
    for task in tasks:
        client.set_task_run_state(task.id, Crashed(message="The process of its run was gone."), force=True)
