"""A project small enough to be run whole: twelve drawn images, two sources, the demo's Stable Diffusion."""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from PIL import Image, ImageDraw

from dreamloom.base.progress import silent
from dreamloom.flows.chain import chain
from dreamloom.flows.chain.steps import Outcome, Step
from dreamloom.flows.project.project import Project, load_project

HOUSE = Path(__file__).parents[2]
_PREFECT_HOME = tempfile.TemporaryDirectory(prefix="prefect-")
os.environ["PREFECT_HOME"] = _PREFECT_HOME.name  # read when prefect is imported


@dataclass(frozen=True)
class Small:
    """The small project, in a folder of its own."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "project.yaml"

    @property
    def workspace(self) -> Path:
        return self.folder / "work"

    def change(self, *keys: str, to: Any) -> None:
        """Sets sources.circles.path and the like in its YAML; to None: takes it out."""
        whole = content = yaml.safe_load(self.file.read_text())
        for key in keys[:-1]:
            content = content.setdefault(key, {})
        content[keys[-1]] = to
        if to is None:
            del content[keys[-1]]
        self.file.write_text(yaml.safe_dump(whole))

    def load(self) -> Project:
        return load_project(self.file)

    def run(self) -> dict[str, Outcome]:
        """Runs the chain, and tells what each step came to, by title."""
        outcomes: dict[str, Outcome] = {}

        def perform(step: Step) -> Outcome:
            outcomes[step.title] = step.run(silent)
            return outcomes[step.title]

        chain.run(self.load(), perform)
        return outcomes


def make_small(folder: Path) -> Small:
    small = Small(folder)
    for name, shape in (("circles", ImageDraw.ImageDraw.ellipse), ("squares", ImageDraw.ImageDraw.rectangle)):
        (folder / name).mkdir(parents=True)
        for place, colour in enumerate(["red", "green", "blue", "orange", "purple", "black"]):
            image = Image.new("RGB", (64, 64), "white")
            shape(ImageDraw.Draw(image), (8 + place, 8, 48 + place, 48), fill=colour)
            image.save(folder / name / f"a {colour} {name[:-1]}_({place}).png")
    content = {
        "name": "small",
        "workspace": "work",
        "sources": {
            "circles": {"kind": "folder", "role": "training", "path": "circles"},
            "squares": {"kind": "folder", "role": "ground_truth", "path": "squares", "part_rows": 3},
        },
        "balance": {"held_out": 0.2},
        "train": {"base": str(HOUSE / "demo" / "models" / "stable-diffusion"), "resolution": 64, "batch_size": 2}
        | {
            "max_train_steps": 2,
            "sample_prompts": ["a red circle"],
            "sample_steps": 1,
            "eval_timesteps": 1,
            "num_workers": 1,
        },
    }
    small.file.write_text(yaml.safe_dump(content))
    return small


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """The small project, not run yet."""
    return make_small(tmp_path)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, Path]:
    small = make_small(tmp_path_factory.mktemp("finished") / "project")
    small.run()
    return small, Path(shutil.copytree(small.folder, small.folder.parent / "kept"))


@pytest.fixture
def finished(_finished: tuple[Small, Path]) -> Small:
    """The small project, run whole. Always in the same place, as paths are part of what is remembered."""
    small, kept = _finished
    shutil.rmtree(small.folder)
    shutil.copytree(kept, small.folder)
    return small


@pytest.fixture(autouse=True)
def _untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are tracked only where a test says so."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


@dataclass(frozen=True)
class PrefectServer:
    """A Prefect server in a process of its own."""

    api: str
    process: subprocess.Popen[bytes]

    def environment(self) -> dict[str, str]:
        """The environment of processes that are tracked by it."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        home = {"PREFECT_HOME": _PREFECT_HOME.name, "PREFECT_API_URL": self.api, "PYTHONPATH": str(HOUSE)}
        return ours | home | {"DO_NOT_TRACK": "1"}

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Lets the server answer nothing during the block."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of the server's database during the block, as a backup may."""
        with contextlib.closing(sqlite3.connect(Path(_PREFECT_HOME.name) / "prefect.db", timeout=60)) as database:
            database.isolation_level = None
            database.execute("BEGIN IMMEDIATE")
            yield
            database.execute("ROLLBACK")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[PrefectServer]:
    """A Prefect server of the tests' own, for flows of this process, without heartbeats, and for others, with them."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    settings = {
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    log = Path(_PREFECT_HOME.name) / "server.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | settings)
    try:
        _await_answer(f"{api}/health", process, log)
        with temporary_settings({PREFECT_API_URL: api, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield PrefectServer(api, process)
    finally:
        process.terminate()
        process.wait(60)


def _await_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        with contextlib.suppress(OSError), urlopen(url, timeout=5):
            return
        time.sleep(0.2)
