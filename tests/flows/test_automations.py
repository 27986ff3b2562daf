"""The automations of a server: made once, brought up to date, and only for deployments that take part."""

from datetime import timedelta
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import Automation, EventTrigger

from dreamloom.flows.automations import HEARTBEAT_SECONDS, STILLBORN, TAG, ZOMBIE, ensure_automations
from dreamloom.flows.deployments import prefect_yaml, project_deployments


def automations() -> dict[str, Automation]:
    with get_client(sync_client=True) as client:
        return {automation.name: automation for automation in client.read_automations()}


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_automations_are_made_once_and_brought_up_to_date() -> None:
    ensure_automations()
    first = automations()
    assert set(first) == {ZOMBIE, STILLBORN}
    for automation in first.values():
        (action,) = automation.actions
        assert isinstance(action, ChangeFlowRunState) and action.state is StateType.CRASHED
    ensure_automations(within=timedelta(seconds=100))
    ensure_automations(within=timedelta(seconds=100))
    second = automations()
    assert {name: a.id for name, a in second.items()} == {name: a.id for name, a in first.items()}
    trigger = second[ZOMBIE].trigger
    assert isinstance(trigger, EventTrigger) and trigger.within == timedelta(seconds=100)
    assert second[STILLBORN] == first[STILLBORN]


def test_every_deployment_beats_and_is_watched(small: Any) -> None:
    declared = prefect_yaml(project_deployments(small.load(), small.file, None))
    for deployment in yaml.safe_load(declared)["deployments"]:
        assert deployment["tags"] == [TAG]
        environment = deployment["work_pool"]["job_variables"]["env"]
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_SECONDS)
