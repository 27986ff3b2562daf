"""Workers on a collection in a store: one has a thing at a time, and what the dead had goes on."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.sharing import store_workers
from dreamloom.base.sharing.shared_document import Content, SharedDocument
from dreamloom.base.sharing.store_workers import StoreWorker, work_at
from dreamloom.base.sharing.workers import Work

Enter = Callable[..., StoreWorker]
_numbers = itertools.count()
SCORES: Work = {"table": "scores", "00000": "a recipe"}


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path))
    monkeypatch.setattr(store_workers, "_BEAT_S", 1e6)
    return f"memory://workers/{next(_numbers)}"


@pytest.fixture
def enter(address: str, clock: Clock) -> Iterator[Enter]:
    workers: list[StoreWorker] = []

    def enter(work: Work | None = SCORES, machine: str = "here") -> StoreWorker:
        workers.append(StoreWorker(SharedDocument(address, "doc.json", {}), work, machine=machine, clock=clock))
        return workers[-1]

    yield enter
    for worker in workers:
        worker.leave()


def watch(worker: StoreWorker, clock: Clock, seconds: int, name: str = "a") -> None:
    """Looks at who has something, each second; in real time it is a moment."""
    for _ in range(seconds):
        clock.now += 1.0
        assert worker.lease(name) is None


def test_one_has_a_thing_until_it_gives_it_back(enter: Enter) -> None:
    one, two = enter(), enter(machine="there")
    mine = one.lease("a")
    assert mine is not None and two.lease("a") is None and two.lease("b") is not None
    assert "process" in two.describe_holder("a")
    mine.release()
    assert two.lease("a") is not None and one.lease("a") is None
    assert one.count() == 2 and len(one.writers()) == 1


def test_what_a_dead_process_of_this_machine_had_is_free_at_once(enter: Enter) -> None:
    dead, other = enter(), enter()
    assert dead.lease("a") is not None and other.lease("a") is None
    dead.forget()  # as kill -9 does
    assert other.lease("a") is not None and other.count() == 1
    with pytest.raises(UserError, match=r"gave no sign of life .* so others do its work there now"):
        dead.lease("b")


def test_one_of_another_machine_is_dead_after_a_minute_of_silence(enter: Enter, clock: Clock) -> None:
    dead, other = enter(machine="there"), enter()
    assert dead.lease("a") is not None
    watch(other, clock, 40)
    dead.beat()
    watch(other, clock, 61)
    clock.now += 1.0
    assert other.lease("a") is not None

    content = other.document.read()
    with pytest.raises(UserError, match="gave no sign of life"):  # it wakes up, and would write
        dead.require_lease(content, "a")
    with pytest.raises(UserError, match="gave no sign of life"):
        dead.lease("b")
    other.require_lease(content, "a")


def test_one_of_another_machine_that_left_is_no_trouble(enter: Enter, clock: Clock) -> None:
    other, watching = enter(machine="there"), enter()
    assert other.lease("a") is not None
    watch(watching, clock, 2)
    document = watching.document.read()
    other.leave()
    watching.document.change(lambda content: content.update(document))  # as it was seen a moment ago
    watch(watching, clock, 2)


def test_while_the_store_is_away_nobody_dies(enter: Enter, clock: Clock) -> None:
    alive, other = enter(machine="there"), enter()
    assert alive.lease("a") is not None
    watch(other, clock, 10)
    clock.now += 3600.0  # nobody could be looked at
    assert other.lease("a") is None
    alive.beat()
    watch(other, clock, 30)
    alive.require_alive(look=True)


def test_something_else_is_refused_until_those_at_work_are_done_or_dead(enter: Enter) -> None:
    at_work = enter()
    for work in (None, {"table": "captions"}, {**SCORES, "00000": "another recipe"}):
        with pytest.raises(UserError, match="is in use by another run"):
            enter(work)
    enter(SCORES).leave()
    at_work.forget()
    enter(None)


def test_blocks_of_a_process_are_one_worker_and_nothing_stays_when_it_leaves(address: str) -> None:
    document = SharedDocument(address, "doc.json", {"files": {}})
    with work_at(document, SCORES) as outer:
        with work_at(document, SCORES) as inner:
            assert inner is outer and outer.lease("a") is not None
        outer.require_alive(look=True)
    assert document.read() == {"files": {}}


def test_a_commit_of_one_that_has_no_lease_is_refused(enter: Enter) -> None:
    one, two = enter(), enter()
    assert one.lease("a") is not None

    def commit(content: Content) -> None:
        two.require_lease(content, "a")
        content["files"] = "written"

    with pytest.raises(UserError, match="others do its work there now"):
        two.document.change(commit)
    assert "files" not in one.document.read()
