"""Skips scheduled runs that were missed, so that they do not pile up: while the machine was off, or another one ran."""

import logging
from datetime import UTC, datetime

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.runtime import deployment
from prefect.states import Cancelled

_log = logging.getLogger(__name__)


def skip_missed_runs() -> None:
    """Cancels the other scheduled runs of this run's deployment that are due by now; runs begun by hand stay.

    Without a deployment there are none. Without an answer of the server they stay, and are skipped by a later run.
    """
    if deployment.id is None:
        return
    of_deployment = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    due = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    try:
        with get_client(sync_client=True) as client:
            missed = client.read_flow_runs(deployment_filter=of_deployment, flow_run_filter=due)
            for run in missed:
                if run.auto_scheduled:
                    client.set_flow_run_state(
                        run.id, Cancelled(name="Skipped", message="Missed: a later run makes up.")
                    )
    except httpx.HTTPError as error:
        _log.info("missed runs are not skipped (%s)", error)
