"""dreamloom up, status and down: what they tell, refuse and write."""

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from dreamloom.flows.commands.cli import run
from dreamloom.flows.commands.up import _ensure_server, _unit
from dreamloom.flows.project.schedule import ScheduleConfig, next_run
from dreamloom.flows.server.services import load_services


def test_status_tells_done_from_stale_and_pending(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    finished.change("caption", "edit", to={"suffix": ", drawn"})
    assert run(["status", str(finished.folder), "--json"]) == 0
    steps = {(step["stage"], step["source"]): step for step in json.loads(capsys.readouterr().out)["steps"]}
    assert steps["ingest", "squares"]["state"] == "done"
    assert steps["ingest", "squares"]["images"] == 6
    assert steps["caption", "squares"] | {"images": 0} == {
        "stage": "caption",
        "source": "squares",
        "state": "stale",
        "parts_done": 2,
        "parts_to_make": 2,
        "images": 0,
    }
    assert steps["train", ""]["state"] == "pending"


def test_down_stops_no_process_that_has_the_number_of_one_that_ended(
    small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["down", str(small.folder)]) == 0
    assert capsys.readouterr().out == "Nothing is up.\n"
    services = load_services(small.workspace)
    services.home.mkdir(parents=True)
    services.processes["server"] = {"pid": os.getpid(), "started": 1.0}
    services.save()
    assert run(["down", str(small.folder)]) == 0
    assert "server    was not running" in capsys.readouterr().out


WORKER = """
import subprocess, sys, time
run = ["sh", "-c", "trap 'echo; read _; exit' TERM; sleep 1000 & wait"]
first = subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print("begun", flush=True)
first.stdout.readline()
second = subprocess.Popen(["sleep", "1000"])
print(second.pid, flush=True)
first.communicate(b"\\n")
time.sleep(1000)
"""


def test_down_waits_for_a_worker_and_its_runs_also_one_that_it_has_begun_since(small: Any) -> None:
    services = load_services(small.workspace)
    services.home.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout and worker.stdout.readline() == "begun\n"
        services.processes["worker"] = {"pid": worker.pid, "started": psutil.Process(worker.pid).create_time()}
        assert services.stop("worker")
        second = int(worker.stdout.readline())
    assert not psutil.pid_exists(second) or psutil.Process(second).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("runs", "told"), [(True, "busy: it runs"), (False, "dreamloom up starts it")])
def test_status_tells_a_server_that_is_busy_from_one_that_has_ended(
    small: Any, capsys: pytest.CaptureFixture[str], runs: bool, told: str
) -> None:
    services = load_services(small.workspace)
    with socket.socket() as silent:  # it is bound, and nobody listens
        silent.bind(("127.0.0.1", 0))
        services.api = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        services.processes["server"] = {"pid": os.getpid(), "started": psutil.Process().create_time() if runs else 1.0}
        services.save()
        assert run(["status", str(small.file), "--json"]) == 0
    assert told in json.loads(capsys.readouterr().out)["server"]


def test_a_server_that_is_too_busy_to_answer_is_waited_for_and_none_is_started_beside_it(small: Any) -> None:
    answers = iter([503, 200])

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(next(answers))
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        services = load_services(small.workspace)
        services.api = f"http://127.0.0.1:{server.server_port}/api"
        services.processes["server"] = ours = {"pid": os.getpid(), "started": psutil.Process().create_time()}
        _ensure_server(services, None, None)
        server.shutdown()
    assert services.processes == {"server": ours}
    assert next(answers, None) is None


def test_units_of_systemd_run_what_up_runs(small: Any, tmp_path: Path) -> None:
    services = load_services(tmp_path / "100% of ${HOME}")
    services.api, services.database = "http://127.0.0.1:4321/api", "postgresql+asyncpg://me:100%@host/prefect"
    unit = _unit(services, small.load(), "worker", has_server=True)
    assert f'ExecStart="{sys.executable}" "-m" "prefect" "worker" "start"' in unit
    assert 'Environment="PREFECT_API_URL=http://127.0.0.1:4321/api"' in unit
    assert "me:100%%@host" in unit
    assert f"WorkingDirectory={tmp_path}/100%% of ${{HOME}}/prefect\n" in unit, "no %-specifier is read into it"
    assert '"--name" "100%% of $${HOME}"' in unit, "nor a variable"
    assert "After=dreamloom-small-server.service" in unit


@pytest.mark.parametrize("cron", ["every monday", "0 3 * *", "61 3 * * 1", "* * * * * *"])
def test_a_schedule_that_is_none_is_refused_with_what_to_write(small: Any, cron: str, capsys: Any) -> None:
    assert run(["up", str(small.folder), "--schedule", cron]) == 2
    assert f"--cron: '{cron}' is no schedule; write minute, hour" in capsys.readouterr().err
    assert not (small.workspace / "prefect").exists()


def test_a_web_hook_that_is_no_address_is_refused(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["up", str(small.file), "--notify", "chat.example"]) == 2
    assert "--notify: 'chat.example' is no address of a web hook; write" in capsys.readouterr().err


def test_a_schedule_says_when_it_is_due_in_its_time_zone() -> None:
    due = next_run(ScheduleConfig(cron="0 3 * * 1", timezone="Europe/Paris"))
    assert (due.weekday(), due.hour, str(due.tzinfo)) == (0, 3, "Europe/Paris")
