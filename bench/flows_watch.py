"""States of a project's runs at a Prefect server, and the processes that work in its folder."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

PATIENCE_SECONDS = 900
"""How long anything is waited for: a busy machine takes minutes for a run."""
PAGE = 200
"""Runs that a server tells at once."""


def start_run(project: str, **parameters: Any) -> UUID:
    """Starts a run of a project's chain, and returns its id."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"end-to-end/{project}")
        return client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id


def states_of(project: str) -> list[str]:
    """The states of all runs of a project's chain that are due or begun."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateName,
    )

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"end-to-end/{project}").id
        runs = partial(
            client.read_flow_runs,
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(name=FlowRunFilterStateName(not_any_=["Scheduled"]))
            ),
            limit=PAGE,
        )
        found = list[str]()
        while page := runs(offset=len(found)):
            found += [str(run.state_name) for run in page]
    return found


def history_of(run: UUID) -> list[str]:
    """The names of the states that a run has had, the first one first."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(run)
    return [str(state.name) for state in sorted(states, key=lambda state: str(state.timestamp))]


def await_state(run: UUID, fitting: tuple[str, ...]) -> str:
    """The state of a run once it fits, or the one that it has after a while."""
    from prefect.client.orchestration import get_client

    state = ""

    def fits() -> bool:
        nonlocal state
        with get_client(sync_client=True) as client:
            state = str(client.read_flow_run(run).state_name)
        return state in fitting

    with suppress(TimeoutError):
        until(fits, "a state")
    return state


def until(is_so: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.5)


def worker_of(folder: Path) -> psutil.Process | None:
    """The worker of a project, as `up` has recorded it."""
    known = json.loads((folder / "work" / "prefect" / "up.json").read_text())["processes"].get("worker")
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(int(known["pid"])) if known else None
    return None


def processes_in(folder: Path) -> list[psutil.Process]:
    """The processes that work in a project's folder, without its worker."""
    worker, found = worker_of(folder), []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            is_here = Path(each.cwd()).is_relative_to(folder) and each.status() != psutil.STATUS_ZOMBIE
            if is_here and (worker is None or each.pid != worker.pid):
                found.append(each)
    return found


def await_no_process(folder: Path) -> int:
    """How many processes of a run are left after a while."""
    with suppress(TimeoutError):
        until(lambda: not processes_in(folder), "its processes to end")
    return len(processes_in(folder))
