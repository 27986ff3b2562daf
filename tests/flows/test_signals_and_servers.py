"""Tracked runs as processes: their server is away, they are stopped, and they are killed. The next run completes them.

The runs scrape a web site that holds one image back, so that tests know the moment at which they interfere.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Crashed

from bench.flows_watch import await_no_process, await_state, processes_in, start_run, worker_of
from bench.flows_world import IMAGES, WaitingSite, write_project
from dreamloom.flows.server.automations import NO_HEARTBEAT, ensure_automations
from dreamloom.scrape.collection import Collection, Table
from tests.flows.conftest import PrefectServer

pytestmark = pytest.mark.slow
Answer = TypeVar("Answer")


@pytest.fixture
def site() -> Iterator[WaitingSite]:
    site = WaitingSite()
    yield site
    site.close()


def start(file: Path, server: PrefectServer) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "dreamloom", "run", str(file), "--until", "scrape"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=server.environment()
    )


def started(file: Path, server: PrefectServer, site: WaitingSite) -> "subprocess.Popen[str]":
    """A run that waits for the image that the site holds back."""
    site.hold()
    process = start(file, server)
    while not site.asked.wait(0.1):
        assert process.poll() is None, process.communicate()
    return process


def finish(file: Path, server: PrefectServer, site: WaitingSite) -> None:
    """Runs the project undisturbed."""
    site.release.set()
    process = start(file, server)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    assert_whole(file)


def assert_whole(file: Path) -> None:
    """Compares a project's table with what the site has."""
    rows = Collection(file.parent / "work" / "collections" / "web").read(Table.RECORDS).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * IMAGES
    assert sorted(row["text"] for row in rows) == [f"image {number}" for number in range(IMAGES)]
    assert len({row["sha256"] for row in rows}) == IMAGES


def flow_runs(name: str) -> list[FlowRun]:
    """The runs of a project, the last first."""
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs() if run.name == name]
    return sorted(runs, key=lambda run: str(run.created), reverse=True)


def task_states(run: UUID) -> dict[str, str]:
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    with get_client(sync_client=True) as client:
        return {task.name: str(task.state_name) for task in client.read_task_runs(flow_run_filter=mine)}


def eventually(ask: Callable[[], Answer], wanted: Callable[[Answer], bool]) -> Answer:
    """What the server answers once it is what is wanted; it hears of tasks some moments later."""
    deadline = time.monotonic() + 200
    while not wanted(answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert wanted(answer), answer
    return answer


@pytest.mark.parametrize("what", ["server", "database"])
def test_a_run_goes_on_while_its_server_is_away_and_the_next_tells_how_it_ended(
    prefect_server: PrefectServer, site: WaitingSite, tmp_path: Path, what: str
) -> None:
    name = f"no-{what}"
    file = write_project(tmp_path / name, site)
    process = started(file, prefect_server, site)
    with prefect_server.away() if what == "server" else prefect_server.locked():
        site.release.set()
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    assert "6 kept" in out
    assert err.count("does not answer") == 1 and "Traceback" not in err
    (run,) = flow_runs(name)
    assert run.state_name == "Running" or what == "database", "the server was not told"
    finish(file, prefect_server, site)
    second, first = flow_runs(name)
    assert (second.state_name, first.state_name) == ("Completed", "Completed")
    assert second.state and second.state.message == "nothing to do"


@pytest.mark.parametrize(
    ("number", "code", "state"), [(signal.SIGINT, 130, "Cancelled"), (signal.SIGTERM, 143, "Crashed")]
)
def test_a_signal_ends_run_tasks_and_process_and_the_next_run_goes_on(
    prefect_server: PrefectServer, site: WaitingSite, tmp_path: Path, number: signal.Signals, code: int, state: str
) -> None:
    name = number.name.lower()
    file = write_project(tmp_path / name, site)
    process = started(file, prefect_server, site)
    process.send_signal(number)
    _, err = process.communicate(timeout=200)
    assert process.returncode == code
    assert err.endswith("Stopped. What is finished stays; run the same command to continue.\n")
    assert "Traceback" not in err
    (run,) = flow_runs(name)
    assert run.state_name == state
    ended = eventually(lambda: task_states(run.id), lambda tasks: "Running" not in tasks.values() and len(tasks) > 2)
    assert ended["filter web"] == "Completed" and ended["scrape web"] != "Completed"
    finish(file, prefect_server, site)


def test_only_a_killed_run_stays_crashed_by_its_missing_heartbeats_and_the_next_ends_its_tasks(
    prefect_server: PrefectServer, site: WaitingSite, tmp_path: Path
) -> None:
    ensure_automations(within=timedelta(seconds=12))
    file = write_project(tmp_path / "killed", site)
    process = started(file, prefect_server, site)
    (run,) = flow_runs("killed")
    with get_client(sync_client=True) as client:  # as the automation may, if the server was away
        client.set_flow_run_state(run.id, Crashed(message=f"{NO_HEARTBEAT} for 45 s"), force=True)
    eventually(lambda: flow_runs("killed"), lambda runs: runs[0].state_name == "Running")
    process.kill()
    process.communicate()
    (run,) = eventually(lambda: flow_runs("killed"), lambda runs: runs[0].state_name == "Crashed")
    assert run.state and str(run.state.message).startswith("No heartbeat")
    ensure_automations()
    finish(file, prefect_server, site)
    eventually(lambda: task_states(run.id), lambda tasks: tasks != {} and "Running" not in tasks.values())


def test_a_run_of_a_worker_is_cancelled_the_next_completes_and_down_leaves_no_process(
    prefect_server: PrefectServer, site: WaitingSite, tmp_path: Path
) -> None:
    file = write_project(tmp_path / "deployed", site)
    environment = prefect_server.environment() | {"PREFECT_WORKER_QUERY_SECONDS": "1"}

    def command(name: str) -> None:
        words = [sys.executable, "-m", "dreamloom", name, str(file)]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    command("up")
    try:
        site.hold()
        run = start_run("deployed", until="scrape")
        assert site.asked.wait(300)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Cancelling())
        assert await_state(run, ("Cancelled",)) == "Cancelled"
        assert await_no_process(file.parent) == 0
        site.release.set()
        assert await_state(start_run("deployed", until="scrape"), ("Completed",)) == "Completed"
        assert_whole(file)
    finally:
        command("down")
    assert processes_in(file.parent) == []
    assert worker_of(file.parent) is None
