"""Interferes with runs that a worker has begun: what becomes of them, of their processes, and of the next run.

    python -m bench.flows_faults [--only NAME ...] [--list]

Real processes: a Prefect server, for each case a project that `dreamloom up` deploys, with a worker of its own. A case
begins a run, waits for a moment (an image that its web site holds back; the first checkpoint of training), interferes,
and then waits until the run's state is one that fits and none of its processes is left. Then the next run has to
complete, and to leave the same tables, training folder and weights as an undisturbed run. Two cases more: a schedule
of every few seconds, and `up`, `status` and `down` with a server of their own. Prints a table, and last a line of JSON;
exits with 1 if anything is otherwise than it should be. All cases take about 25 minutes.
"""

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

from bench.flows_watch import (
    await_no_process,
    await_state,
    history_of,
    processes_in,
    start_run,
    states_of,
    until,
    worker_of,
)
from bench.flows_world import Server, WaitingSite, run_command, what_was_made, write_project

STEPS = {"scrape": 10, "train": 100}
"""Steps of training where a run is interfered with at a moment: in training, enough for what comes a while later."""
CHECKPOINT_STEPS = 5
SERVER_AWAY_SECONDS, LOCKED_SECONDS, RESTART_SECONDS = 90, 20, 5
CRASHED, CANCELLED, COMPLETED = ("Crashed",), ("Cancelled",), ("Completed",)


@dataclass
class Row:
    """What became of a case."""

    case: str
    state: str = ""
    """Of the run that was interfered with."""
    history: str = ""
    """The states that it had, after it was Running."""
    seconds: float = 0.0
    """Until it had that state."""
    processes_left: int = 0
    next_run: str = ""
    same: bool = False
    """Whether tables, training folder and weights are those of an undisturbed run."""
    ok: bool = False


@dataclass
class Scene:
    """A run that a worker has begun."""

    server: Server
    site: WaitingSite
    file: Path
    run: UUID
    worker: psutil.Process
    process: psutil.Process
    """That of the run."""


Strike = Callable[[Scene], None]


def cancel(scene: Scene) -> None:
    """Does what the dashboard's button does."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(scene.run, Cancelling())


def kill_both(scene: Scene) -> None:
    """What a power cut leaves, where the server is another machine's."""
    scene.worker.kill()
    for each in [scene.process, *scene.process.children(recursive=True)]:
        each.kill()


def kill_server(scene: Scene) -> None:
    """Kills the server, and starts it again a moment later."""
    scene.server.kill()
    scene.site.release.set()
    time.sleep(RESTART_SECONDS)
    scene.server.start_again()


def leave_server_gone(scene: Scene) -> None:
    """Kills the server, and starts it again when a run without heartbeats is long taken for dead."""
    scene.server.kill()
    time.sleep(SERVER_AWAY_SECONDS)
    scene.server.start_again()
    scene.site.release.set()


def leave_server_away(scene: Scene) -> None:
    """Lets the server answer nothing for a while."""
    with scene.server.away():
        scene.site.release.set()
        time.sleep(SERVER_AWAY_SECONDS)


def lock_database(scene: Scene) -> None:
    """Holds the lock of the server's database for a while, as a backup may."""
    scene.site.release.set()
    with closing(sqlite3.connect(Path(os.environ["PREFECT_HOME"]) / "prefect.db", timeout=60)) as database:
        database.isolation_level = None
        database.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_SECONDS)
        database.execute("ROLLBACK")


FAULTS: dict[str, tuple[Strike, tuple[str, ...]]] = {
    "cancel": (cancel, CANCELLED),
    "run-sigterm": (lambda scene: scene.process.terminate(), (*CRASHED, *CANCELLED)),
    "run-kill": (lambda scene: scene.process.kill(), CRASHED),
    "worker-sigterm": (lambda scene: scene.worker.terminate(), CRASHED),
    "worker-kill": (lambda scene: _and_release(scene, scene.worker.kill), COMPLETED),
    "both-kill": (kill_both, CRASHED),
    "server-kill": (kill_server, COMPLETED),
    "server-gone": (leave_server_gone, COMPLETED),
    "server-away": (leave_server_away, COMPLETED),
    "database-locked": (lock_database, COMPLETED),
}
"""Name → what is done, and the states of a run that fit."""


def _and_release(scene: Scene, strike: Callable[[], None]) -> None:
    strike()
    scene.site.release.set()


class Bench:
    """The server, the web site, and what an undisturbed run makes.

    Args:
        folder: for everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server, self.site = Server(folder), WaitingSite()
        os.environ["PREFECT_API_URL"] = self.server.api
        self._undisturbed: dict[str, dict[str, str]] = {}

    def is_undisturbed(self, file: Path, moment: str) -> bool:
        """Tells whether a project holds the same as that of a run which nothing interfered with."""
        if moment not in self._undisturbed:
            self.site.release.set()
            other = self.write(f"undisturbed-{moment}", moment)
            run_command("run", str(other), "--no-track")
            self._undisturbed[moment] = what_was_made(other.parent / "work")
        return what_was_made(file.parent / "work") == self._undisturbed[moment]

    def write(self, name: str, moment: str = "scrape") -> Path:
        """Writes a project, and returns its file."""
        return write_project(
            self.folder / name,
            self.site,
            max_train_steps=STEPS[moment],
            checkpoint_every_n_steps=CHECKPOINT_STEPS,
            num_workers=1,
        )

    def interfere(self, moment: str, fault: str) -> Row:
        """Begins a run, interferes with it, and tells what came of it."""
        row, (strike, fitting) = Row(f"{fault} in {moment}"), FAULTS[fault]
        with self.deployed(f"{fault}-{moment}", moment) as file:
            scene = self.begin(file, moment)
            strike(scene)
            struck = time.monotonic()
            row.state = await_state(scene.run, fitting)
            row.seconds = round(time.monotonic() - struck, 1)
            row.history = ", ".join(history_of(scene.run)).partition("Running, ")[2]
            row.processes_left = await_no_process(file.parent)
            self.site.release.set()
            run_command("up", str(file))  # as systemd does, if the worker is gone
            row.next_run = await_state(start_run(file.parent.name), COMPLETED)
            row.same = self.is_undisturbed(file, moment)
        row.ok = row.state in fitting and not row.processes_left and row.next_run in COMPLETED and row.same
        return row

    @contextmanager
    def deployed(self, name: str, moment: str = "scrape") -> Iterator[Path]:
        """Yields a project that is deployed, with a worker, which is stopped after the block."""
        file = self.write(name, moment)
        run_command("up", str(file))
        try:
            yield file
        finally:
            self.site.release.set()
            run_command("down", str(file))

    def begin(self, file: Path, moment: str) -> Scene:
        """Starts a run by its deployment, and waits for the moment."""
        self.site.hold() if moment == "scrape" else self.site.release.set()
        run = start_run(file.parent.name)
        checkpoints = file.parent / "work" / "runs"
        until(
            lambda: self.site.asked.is_set() if moment == "scrape" else any(checkpoints.glob("*/checkpoints/[0-9]*")),
            f"{moment} to begin",
        )
        worker = worker_of(file.parent)
        assert worker is not None
        return Scene(
            self.server, self.site, file, run, worker, min(processes_in(file.parent), key=psutil.Process.create_time)
        )

    def schedule(self) -> Row:
        """Lets a run become due every 5 s while one is held: they must not pile up, nor run side by side."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import DeploymentScheduleCreate
        from prefect.client.schemas.schedules import IntervalSchedule

        row = Row("schedule every 5 s")
        with self.deployed("every-5-s") as file:
            scene = self.begin(file, "scrape")
            with get_client(sync_client=True) as client:
                deployment = client.read_deployment_by_name("end-to-end/every-5-s").id
                every = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(seconds=5)))
                (made,) = client.create_deployment_schedules(deployment, [every])
                until(lambda: sum(state == "Late" for state in states_of("every-5-s")) >= 3, "three runs to be late")
                begun = len(processes_in(file.parent))
                self.site.release.set()
                row.state = await_state(scene.run, COMPLETED)
                until(lambda: states_of("every-5-s").count("Completed") >= 2, "the run that makes up")
                client.delete_deployment_schedule(deployment, made.id)
                until(lambda: not {"Running", "Pending"} & set(states_of("every-5-s")), "the queue to be empty")
            states = states_of("every-5-s")
            row.next_run = f"{states.count('Completed')} Completed, {states.count('Skipped')} Skipped"
            row.processes_left = await_no_process(file.parent)
            row.same = self.is_undisturbed(file, "scrape")
            row.ok = begun == 1 and row.same and not row.processes_left and states.count("Skipped") >= 2
        return row

    def up_and_down(self) -> Row:
        """`up` with a server of its own, `status` while a run is held, and `down`, which leaves no process."""
        row, file = Row("up, status, down"), self.write("alone")
        shared = {name: os.environ.pop(name) for name in ("PREFECT_API_URL", "PREFECT_HOME")}

        def status() -> dict[str, Any]:
            told: dict[str, Any] = json.loads(run_command("status", str(file), "--json"))
            return told

        def is_seen() -> bool:
            seen.update(status())
            return bool(seen["server"] == "running")

        seen: dict[str, Any] = {}
        try:
            began = time.monotonic()
            run_command("up", str(file), "--schedule", "0 3 * * 1", "--port", str(self.server.port + 1))
            row.seconds = round(time.monotonic() - began, 1)
            until(is_seen, "status to see the server")
            row.state = f"server {seen['server']}, worker {seen['worker']}"
            again = run_command("up", str(file), "--schedule", "0 3 * * 1")
            run_command("down", str(file))
            row.processes_left = len(processes_in(file.parent))
            row.ok = seen["worker"] == "running" and bool(seen["next_run"]) and str(seen["dashboard"]) in again
            row.ok &= status()["worker"] == "not running" and not row.processes_left
        finally:
            run_command("down", str(file))
            os.environ |= shared
        return row


def main() -> None:
    """Goes through the cases, and prints the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these cases; a name, or the beginning of one")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    arguments = parser.parse_args()
    names = [f"{fault} in {moment}" for moment in ("scrape", "train") for fault in FAULTS] + ["schedule", "up"]
    if arguments.list:
        print("\n".join(names))
        return
    wanted = [name for name in names if not arguments.only or name.startswith(tuple(arguments.only))]
    with tempfile.TemporaryDirectory(prefix="bench-flows-faults-") as folder:
        os.environ |= {"PREFECT_HOME": f"{folder}/prefect", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        os.environ |= {"DO_NOT_TRACK": "1", "OMP_WAIT_POLICY": "PASSIVE", "PREFECT_WORKER_QUERY_SECONDS": "1"}
        rows = _go_through(Bench(Path(folder)), wanted)
    print(json.dumps({"cases": len(rows), "failed": [row.case for row in rows if not row.ok]}))
    sys.exit(not all(row.ok for row in rows))


def _go_through(bench: Bench, names: list[str]) -> list[Row]:
    rows = []
    try:
        for name in names:
            fault, _, moment = name.partition(" in ")
            alone = {"schedule": bench.schedule, "up": bench.up_and_down}
            try:
                row = alone[fault]() if fault in alone else bench.interfere(moment, fault)
            except (RuntimeError, TimeoutError) as error:
                row = Row(name, state=str(error))
            rows.append(row)
            print("  ".join(f"{key} {value}" for key, value in asdict(row).items() if value != ""), flush=True)
    finally:
        bench.site.close()
        bench.server.close()
    return rows


if __name__ == "__main__":
    main()
