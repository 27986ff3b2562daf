"""The automations of a server: made once, brought up to date, and only for deployments that take part."""

import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import Automation, EventTrigger
from prefect.states import Failed

from dreamloom.flows.automations import HEARTBEAT_SECONDS, STILLBORN, TAG, ZOMBIE, ensure_automations
from dreamloom.flows.deployments import deploy, prefect_yaml, project_deployments
from dreamloom.flows.notices import ensure_notice


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


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_web_hook_is_told_why_a_run_of_the_project_failed_until_it_is_taken_back(small: Any) -> None:
    told: Queue[dict[str, str]] = Queue()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

    deployments = project_deployments(small.load(), small.file, None)[:1]
    deploy(deployments)
    with HTTPServer(("127.0.0.1", 0), Hook) as hook, get_client(sync_client=True) as client:
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        for _ in range(2):
            ensure_notice("small", ["small"], f"http://127.0.0.1:{hook.server_port}")
        run = client.create_flow_run_from_deployment(client.read_deployment_by_name("end-to-end/small").id)
        client.set_flow_run_state(run.id, Failed(message="Too few images came."), force=True)
        assert told.get(timeout=120) == {"text": f"dreamloom small: {run.name} Failed: Too few images came."}
        ensure_notice("small", ["small"], None)
        hook.shutdown()
    assert set(automations()) <= {ZOMBIE, STILLBORN}
    assert told.empty()


def test_every_deployment_beats_and_is_watched(small: Any) -> None:
    declared = prefect_yaml(project_deployments(small.load(), small.file, None))
    for deployment in yaml.safe_load(declared)["deployments"]:
        assert deployment["tags"] == [TAG]
        environment = deployment["work_pool"]["job_variables"]["env"]
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_SECONDS)
