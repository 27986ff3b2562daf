"""Tracked runs as processes: their server is away, they are stopped, and they are killed. The next run completes them.

The runs scrape a web site that holds one image back, so that tests know the moment at which they interfere.
"""

import io
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
import yaml
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun

from dreamloom.flows.automations import ensure_automations
from dreamloom.scrape.collection import Collection, Table
from tests.flows.conftest import HOUSE, PrefectServer

pytestmark = pytest.mark.slow
Answer = TypeVar("Answer")
IMAGES = 6


class Site:
    """A web site of a few images, of which it holds back one until `release` is set."""

    def __init__(self) -> None:
        self.asked, self.release = threading.Event(), threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = re.fullmatch(r"/(\d+)\.png", self.path)
                if number and int(number[1]) == IMAGES - 1:
                    site.asked.set()
                    site.release.wait(300)
                self.send_response(200 if number else 404)
                self.end_headers()
                if number:
                    image = io.BytesIO()
                    Image.new("RGB", (300, 300), (40 * int(number[1]), 80, 120)).save(image, "PNG")
                    self.wfile.write(image.getvalue())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def hold(self) -> None:
        """Holds the last image back again."""
        self.asked.clear()
        self.release.clear()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.release.set()
    site.server.shutdown()


def project(folder: Path, site: Site) -> Path:
    folder.mkdir()
    rows = "".join(f"{site.url}/{number}.png,image {number}\n" for number in range(IMAGES))
    (folder / "list.csv").write_text(f"url,text\n{rows}")
    content = {
        "name": folder.name,
        "workspace": "work",
        "sources": {
            "web": {
                "kind": "laion",
                "role": "training",
                "index": ["list.csv"],
                "url_column": "url",
                "text_column": "text",
            }
        },
        "scrape": {"allow_private_addresses": True, "timeout_s": 300, "min_side": 16, "concurrency_per_host": 1},
        "train": {"base": str(HOUSE / "demo" / "models" / "stable-diffusion")},
    }
    (folder / "project.yaml").write_text(yaml.safe_dump(content))
    return folder / "project.yaml"


def start(file: Path, server: PrefectServer) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "dreamloom", "run", str(file), "--until", "scrape"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=server.environment()
    )


def started(file: Path, server: PrefectServer, site: Site) -> "subprocess.Popen[str]":
    """A run that waits for the image that the site holds back."""
    site.hold()
    process = start(file, server)
    while not site.asked.wait(0.1):
        assert process.poll() is None, process.communicate()
    return process


def finish(file: Path, server: PrefectServer, site: Site) -> None:
    """Runs the project undisturbed, and compares its table with what the site has."""
    site.release.set()
    process = start(file, server)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
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


def test_a_run_goes_on_while_its_server_is_away_and_the_next_tells_how_it_ended(
    prefect_server: PrefectServer, site: Site, tmp_path: Path
) -> None:
    file = project(tmp_path / "away", site)
    process = started(file, prefect_server, site)
    with prefect_server.away():
        site.release.set()
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    assert "6 kept" in out
    assert err.count("does not answer") == 1 and "Traceback" not in err
    (run,) = flow_runs("away")
    assert run.state_name == "Running", "the server was not told"
    finish(file, prefect_server, site)
    second, first = flow_runs("away")
    assert (second.state_name, first.state_name) == ("Completed", "Completed")
    assert second.state and second.state.message == "nothing to do"


@pytest.mark.parametrize(
    ("number", "code", "state"), [(signal.SIGINT, 130, "Cancelled"), (signal.SIGTERM, 143, "Crashed")]
)
def test_a_signal_ends_run_tasks_and_process_and_the_next_run_goes_on(
    prefect_server: PrefectServer, site: Site, tmp_path: Path, number: signal.Signals, code: int, state: str
) -> None:
    name = number.name.lower()
    file = project(tmp_path / name, site)
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


def test_a_killed_run_is_crashed_by_its_missing_heartbeats_and_the_next_ends_its_tasks(
    prefect_server: PrefectServer, site: Site, tmp_path: Path
) -> None:
    ensure_automations(within=timedelta(seconds=12))
    file = project(tmp_path / "killed", site)
    process = started(file, prefect_server, site)
    process.kill()
    process.communicate()
    (run,) = eventually(lambda: flow_runs("killed"), lambda runs: runs[0].state_name == "Crashed")
    assert run.state and str(run.state.message).startswith("No heartbeat")
    ensure_automations()
    finish(file, prefect_server, site)
    eventually(lambda: task_states(run.id), lambda tasks: tasks != {} and "Running" not in tasks.values())
