"""A project's own Prefect server and worker, as processes that outlive the terminal.

WORKSPACE/prefect/
      up.json           address of the server, database, the processes by number and start
      server.log  worker.log
      prefect.db        the server's database, and whatever else Prefect keeps in its home
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_json

Service = Literal["server", "worker"]

HOST, PORT = "127.0.0.1", 4200
_START_SECONDS, _STOP_SECONDS = 600.0, 60.0
"""How long a server may take to answer on a busy machine, and a run to save what it has."""


@dataclass
class Services:
    """What `dreamloom up` started for a workspace."""

    home: Path
    """The folder of logs and of this record."""
    api: str = ""
    """Address of the server's API."""
    database: str | None = None
    """Address of a PostgreSQL database; None: SQLite in Prefect's home."""
    processes: dict[Service, dict[str, float]] = field(default_factory=dict)
    """Name → number and start of the process, which tell it from a later one of the same number."""

    @property
    def record(self) -> Path:
        """The file of this record."""
        return self.home / "up.json"

    @property
    def prefect_home(self) -> Path:
        """Prefect's home: the user's own, or this folder."""
        return Path(os.environ.get("PREFECT_HOME") or self.home)

    @property
    def dashboard(self) -> str:
        """Address of the dashboard."""
        return self.api.removesuffix("/api")

    def is_running(self, name: Service) -> bool:
        """Tells whether a process that was started here lives."""
        return _process(self.processes.get(name)) is not None

    def save(self) -> None:
        """Writes the record, for the user alone, as the database's address may hold a password."""
        commit_json(self.record, {key: value for key, value in asdict(self).items() if key != "home"})
        self.record.chmod(0o600)

    def environment(self) -> dict[str, str]:
        """Returns the environment of the server, the worker and the commands that talk to them."""
        paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        values = {"PREFECT_HOME": str(self.prefect_home), "PREFECT_API_URL": self.api}
        values |= {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
        values |= {"PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database} if self.database else {}
        return values

    def command(self, name: Service) -> list[str]:
        """Returns the command line of a process."""
        prefect = [sys.executable, "-m", "prefect"]
        if name == "server":
            return [*prefect, "server", "start", "--host", HOST, "--port", self.dashboard.rpartition(":")[2]]
        return [
            *prefect,
            "worker",
            "start",
            "--pool",
            "dreamloom",
            "--type",
            "process",
            "--name",
            self.home.parent.name,
        ]

    def start(self, name: Service) -> None:
        """Starts a process that outlives this one, and its terminal; its output goes to a log."""
        import psutil

        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                self.command(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=os.environ | self.environment(),
                start_new_session=True,
            )
        self.processes[name] = {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}
        self.save()

    def await_server(self) -> None:
        """Waits until the server answers, which makes its database first.

        Raises:
            UserError: it ended, or does not answer in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not answers(self.api):
            if not self.is_running("server") or time.monotonic() > deadline:
                raise UserError(
                    f"The Prefect server does not answer at {self.api}; {self.home / 'server.log'} says why."
                )
            time.sleep(0.3)

    def stop(self, name: Service) -> bool:
        """Stops a process that was started here, and what it started: runs first, which save what they have.

        Returns:
            False where none was running.
        """
        process = _process(self.processes.pop(name, None))
        if process is None:
            return False
        if name == "worker":
            _end(_descendants(process))
        _end([process, *_descendants(process)])  # also a run that the worker has begun since
        return True


def load_services(workspace: Path) -> Services:
    """Reads what was started for a workspace; nothing, where nothing was."""
    services = Services(workspace / "prefect")
    try:
        stored: Mapping[str, Any] = json.loads(services.record.read_bytes())
        return Services(services.home, stored["api"], stored["database"], dict(stored["processes"]))
    except FileNotFoundError:
        return services
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{services.record} can't be read ({error}); stop its processes, and delete it.") from None


def answers(api: str, timeout_s: float = 2.0) -> bool:
    """Tells whether a server answers at the address of an API."""
    from urllib.request import urlopen

    try:
        with urlopen(f"{api}/health", timeout=timeout_s):
            return True
    except (OSError, ValueError):
        return False


def free_port() -> int:
    """Returns a free port of this machine, Prefect's own if nobody uses it."""
    for port in (PORT, 0):
        with socket.socket() as trial, suppress(OSError):
            trial.bind((HOST, port))
            return int(trial.getsockname()[1])
    raise UserError("No port of 127.0.0.1 is free for the Prefect server; close some programs.")


def _descendants(process: Any) -> list[Any]:
    import psutil

    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _end(processes: Sequence[Any]) -> None:
    """Asks processes to end, and waits; kills those that do not."""
    import psutil

    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    while any(map(_is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for each in filter(_is_alive, processes):
        with suppress(psutil.NoSuchProcess):
            each.kill()


def _is_alive(process: Any) -> bool:
    """Whether a process has not ended; one whose parent never asks what became of it has."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _process(known: Mapping[str, float] | None) -> Any:
    """The process of a record; None where it ended, also where another has its number now."""
    import psutil

    if known is None:
        return None
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(known["pid"]))
        return process if process.create_time() == known["started"] and _is_alive(process) else None
    return None
