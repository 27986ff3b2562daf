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
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed, Failed

from dreamloom.flows.server.automations import (
    HEARTBEAT_SECONDS,
    NO_HEARTBEAT,
    STILLBORN,
    TAG,
    ZOMBIE,
    ensure_automations,
)
from dreamloom.flows.server.deployments import deploy, prefect_yaml, project_deployments
from dreamloom.flows.server.heartbeat import Heart
from dreamloom.flows.server.notices import ensure_notices
from tests.flows.conftest import PrefectServer


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
def test_a_web_hook_is_told_why_runs_failed_or_are_gone_but_not_of_one_that_lives(
    prefect_server: PrefectServer, small: Any
) -> None:
    told: Queue[str] = Queue()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

    ids = deploy(project_deployments(small.load(), small.file, None)[:1])
    with HTTPServer(("127.0.0.1", 0), Hook) as hook, get_client(sync_client=True) as client:
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        kept = []
        for _ in range(2):
            url = f"http://127.0.0.1:{hook.server_port}"
            ensure_notices("small", ids, url, revived_within=timedelta(seconds=20))
            kept.append(automations())
        assert kept[0] == kept[1]
        lives, gone, failed = (client.create_flow_run_from_deployment(ids[0]) for _ in range(3))
        client.set_flow_run_state(lives.id, Crashed(message=NO_HEARTBEAT), force=True)
        heart = Heart(prefect_server.api, lives)
        client.set_flow_run_state(gone.id, Crashed(message="It is gone."), force=True)
        client.set_flow_run_state(failed.id, Failed(message="Too few images came."), force=True)
        assert {told.get(timeout=240) for _ in range(2)} == {
            f"dreamloom small: {failed.name} Failed: Too few images came.",
            f"dreamloom small: {gone.name} Crashed: It is gone.",
        }
        heart.close()
        assert client.read_flow_run(lives.id).state_name == "Running"
        client.set_flow_run_state(lives.id, Cancelled(), force=True)  # else it holds the queue of other tests' runs
        ensure_notices("small", ids, None)
        hook.shutdown()
    assert set(automations()) <= {ZOMBIE, STILLBORN}
    assert told.empty()


def test_a_server_that_was_away_for_days_still_knows_which_runs_were_silent() -> None:
    assert get_current_settings().server.events.expired_bucket_buffer >= timedelta(days=7)


def test_every_deployment_beats_and_is_watched(small: Any) -> None:
    declared = prefect_yaml(project_deployments(small.load(), small.file, None))
    for deployment in yaml.safe_load(declared)["deployments"]:
        assert deployment["tags"] == [TAG]
        environment = deployment["work_pool"]["job_variables"]["env"]
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_SECONDS)
