"""Leases: a thing has one holder, the dead lose theirs, and no clock of another machine matters."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from dreamloom.base.errors import UserError
from dreamloom.base.sharing import leases
from dreamloom.base.sharing.leases import Lease, describe_holder, lease
from dreamloom.base.sharing.workers import EXPIRY_S, FOLDER, Worker

WORK = {"table": "scores"}
MACHINES = st.sampled_from(["here", "there", ""])
"""The third can't tell which it is, as one whose file system has no locks."""


@contextmanager
def working(folder: Path, machine: str = "here", clock: list[float] | None = None) -> Iterator[Worker]:
    seconds = clock or [0.0]
    worker = Worker(folder, WORK, machine=machine, clock=lambda: seconds[0])
    try:
        yield worker
    finally:
        worker.leave()


def show_time(folder: Path, worker: Worker, seconds: float) -> None:
    """Lets a worker's sign of life have the time of its own clock."""
    os.utime(folder / FOLDER / worker.file, (seconds, seconds))


class Workers(RuleBasedStateMachine):
    """Processes on machines whose clocks are hours apart: they come, lease, give back and die as they like."""

    workers, held = Bundle("workers"), Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.temporary = TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.clock, self.beats = [0.0], 0
        self.alive: list[Worker] = []
        self.leases: list[tuple[str, Lease]] = []

    def teardown(self) -> None:
        for worker in self.alive:
            worker.leave()
        self.temporary.cleanup()

    @rule(target=workers, machine=MACHINES)
    def enter(self, machine: str) -> Worker:
        worker = Worker(self.folder, WORK, machine=machine, clock=lambda: self.clock[0])
        self.alive.append(worker)
        return worker

    @rule(target=held, worker=workers, name=st.sampled_from("ab"))
    def take(self, worker: Worker, name: str) -> tuple[str, Lease] | None:
        leased = lease(worker, name) if worker in self.alive else None
        if leased is None:
            return None
        assert not [name for other, each in self.leases if other == name and each.worker in self.alive]
        self.leases = [(other, each) for other, each in self.leases if other != name]
        self.leases.append((name, leased))
        return name, leased

    @rule(given=consumes(held))
    def give_back(self, given: tuple[str, Lease] | None) -> None:
        if given in self.leases and given[1].worker in self.alive:
            given[1].release()
            self.leases.remove(given)

    @rule(worker=consumes(workers))
    def die(self, worker: Worker) -> None:
        if worker in self.alive:
            self.alive.remove(worker)
            worker.forget()

    @rule(seconds=st.floats(0, 10 * EXPIRY_S), hours=st.lists(st.integers(-2, 2), min_size=5, max_size=5))
    def live_on(self, seconds: float, hours: list[int]) -> None:
        self.beats += 1
        self.clock[0] += seconds
        for worker, ahead in zip(self.alive, hours, strict=False):
            show_time(self.folder, worker, 1e9 + 3600 * ahead + self.beats)
        for worker in self.alive[len(hours) :]:
            show_time(self.folder, worker, 1e9 + self.beats)

    @invariant()
    def the_living_are_not_taken_for_dead(self) -> None:
        for worker in self.alive:
            worker.require_alive(look=True)

    @invariant()
    def what_the_dead_had_can_be_leased(self) -> None:
        free = {"a", "b"} - {name for name, each in self.leases if each.worker in self.alive}
        if not free or not self.alive:
            return
        for seconds in (0.0, EXPIRY_S + 1):  # a look, and one when it is due
            self.live_on(seconds, [0] * 5)
            found = {name: lease(self.alive[0], name) for name in free}
            for leased in filter(None, found.values()):
                leased.release()
        assert all(found.values())


Workers.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestWorkers = Workers.TestCase


def test_no_worker_depends_on_what_an_open_folder_shows(tmp_path: Path) -> None:
    """On btrfs it shows no file that was made since; elsewhere, none behind the place where a listing stopped."""
    with working(tmp_path) as worker, working(tmp_path):
        os.lseek(worker.place, 0, os.SEEK_END)
        assert worker.count() == 2


def test_a_worker_of_another_machine_that_gives_no_sign_loses_what_it_has(tmp_path: Path) -> None:
    clock = [0.0]
    with working(tmp_path, "there") as sleeper, working(tmp_path, "here", clock) as other:
        mine = lease(sleeper, "a")
        assert mine is not None
        show_time(tmp_path, sleeper, 2e9)  # its clock is years ahead
        assert lease(other, "a") is None
        clock[0] = EXPIRY_S - 1
        show_time(tmp_path, sleeper, 1e9)  # and set back
        assert lease(other, "a") is None
        clock[0] = 2 * EXPIRY_S
        taken = lease(other, "a")
        assert taken is not None
        mine.release()  # it wakes up
        assert describe_holder(other, "a")
        with pytest.raises(UserError, match="gave no sign of life"):
            sleeper.require_alive(look=True)
        with pytest.raises(UserError, match="gave no sign of life"):
            lease(sleeper, "b")
        taken.release()


def test_a_look_that_is_out_of_date_leases_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process reads who has it; before it goes on, others take it over, finish, and take it again."""
    with working(tmp_path) as slow, working(tmp_path) as quick:
        dead = Worker(tmp_path, WORK, machine="here")
        assert lease(dead, "a")
        dead.forget()
        create = leases._create

        def create_late(worker: Worker, file: str) -> bool:
            monkeypatch.setattr(leases, "_create", create)
            first = lease(quick, "a")
            assert first is not None
            first.release()
            assert lease(quick, "a")
            return create(worker, file)

        monkeypatch.setattr(leases, "_create", create_late)
        assert lease(slow, "a") is None
        assert lease(quick, "a") is None  # it has it


def test_leases_work_where_files_have_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with working(tmp_path) as one, working(tmp_path) as two:
        mine = lease(one, "a")
        assert mine is not None and lease(two, "a") is None
        mine.release()
        assert lease(two, "a")
    clock = [0.0]
    with working(tmp_path, clock=clock) as one:
        (tmp_path / FOLDER / "lease-b.0").touch()  # its writer died before it wrote its name
        assert lease(one, "b") is None
        clock[0] = EXPIRY_S + 1
        assert lease(one, "b") is None  # it is free from now on
        assert lease(one, "b")
