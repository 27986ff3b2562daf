"""dreamloom up, status and down: a server and a worker of the project's own, and a chain that runs by itself."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest

from dreamloom.flows.cli import run
from dreamloom.flows.schedule import ScheduleConfig, next_run
from dreamloom.flows.services import load_services
from dreamloom.flows.up import _ensure_server, _unit

HOUSE = Path(__file__).parents[2]


def dreamloom(*words: str | Path) -> str:
    """What a command prints, of a user who has set nothing of Prefect."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    faster = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "2"}
    environment = ours | faster | {"PYTHONPATH": str(HOUSE)}
    command = [sys.executable, "-m", "dreamloom.flows.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(api: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{api}/{path}", data, {"Content-Type": "application/json"}), timeout=60) as answer:
        return json.load(answer)


def await_runs(api: str, wanted: set[str]) -> None:
    """Waits until the server has runs of these states."""
    deadline = time.monotonic() + 900
    while not wanted <= {each["state_name"] for each in ask(api, "flow_runs/filter", {"limit": 200})}:
        assert time.monotonic() < deadline, ask(api, "flow_runs/filter", {"limit": 200})
        time.sleep(0.3)


def await_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """What status says once the server, which is busy at times, answers it."""
    deadline = time.monotonic() + 120
    while True:
        assert run(["status", str(folder), "--json"]) == 0
        state = json.loads(capsys.readouterr().out)
        if state["server"] == "running":
            return state
        assert time.monotonic() < deadline, state


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@pytest.mark.slow
def test_a_project_is_put_up_runs_by_itself_and_is_taken_down(
    finished: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    started: dict[str, int] = {}
    try:
        out = dreamloom("up", finished.folder, "--schedule", "0 3 * * 1", "--port", str(free_port()))
        assert "deployed  train/small" in out
        services = load_services(finished.workspace)
        started = {name: int(process["pid"]) for name, process in services.processes.items()}
        assert started.keys() == {"server", "worker"}
        assert services.record.stat().st_mode & 0o077 == 0, "a database's address may hold a password"

        chain = ask(services.api, "deployments/name/end-to-end/small")
        often = {"schedule": {"interval": 1}, "active": True}
        ask(services.api, f"deployments/{chain['id']}/schedules", [often])  # as somebody does in the dashboard
        ask(services.api, f"deployments/{chain['id']}/schedule", {"max_runs": 2})  # as the server does each minute
        await_runs(services.api, {"Completed", "Skipped"})
        state = await_server(finished.folder, capsys)
        assert state["worker"] == "running"
        assert {step["state"] for step in state["steps"]} <= {"done", "running"}
        assert state["next_run"]

        dreamloom("up", finished.folder, "--schedule", "0 4 * * 2")
        again = {name: int(process["pid"]) for name, process in load_services(finished.workspace).processes.items()}
        assert again == started
        schedules = ask(services.api, f"deployments/{chain['id']}")["schedules"]
        assert [each["schedule"]["cron"] for each in schedules] == ["0 4 * * 2"]
    finally:
        assert run(["down", str(finished.folder)]) == 0
        assert not [name for name, pid in started.items() if psutil.pid_exists(pid)]
    assert run(["status", str(finished.folder)]) == 0
    assert "dreamloom up starts it" in capsys.readouterr().out
    assert (finished.workspace / "prefect" / "prefect.db").exists()


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
    services = load_services(small.workspace)
    services.api, services.database = "http://127.0.0.1:4321/api", "postgresql+asyncpg://me:100%@host/prefect"
    unit = _unit(services, small.load(), "worker", has_server=True)
    assert f'ExecStart="{sys.executable}" "-m" "prefect" "worker" "start"' in unit
    assert 'Environment="PREFECT_API_URL=http://127.0.0.1:4321/api"' in unit
    assert "me:100%%@host" in unit
    assert "After=dreamloom-small-server.service" in unit


@pytest.mark.parametrize("cron", ["every monday", "0 3 * *", "61 3 * * 1", "* * * * * *"])
def test_a_schedule_that_is_none_is_refused_with_what_to_write(small: Any, cron: str, capsys: Any) -> None:
    assert run(["up", str(small.folder), "--schedule", cron]) == 2
    assert f"--cron: '{cron}' is no schedule; write minute, hour" in capsys.readouterr().err
    assert not (small.workspace / "prefect").exists()


def test_a_schedule_says_when_it_is_due_in_its_time_zone() -> None:
    due = next_run(ScheduleConfig(cron="0 3 * * 1", timezone="Europe/Paris"))
    assert (due.weekday(), due.hour, str(due.tzinfo)) == (0, 3, "Europe/Paris")
