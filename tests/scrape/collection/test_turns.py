"""Processes that make one table share its parts: each part is made once, and none is lost by a kill at any moment."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.stage import StageConfig, Summary, recipe
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.parts import make_parts
from dreamloom.scrape.collection.turns import Order

PARTS = [f"{number:05d}" for number in range(4)]


class Config(StageConfig):
    words: str = "a"


RECIPES = {part: recipe("x", 1, Config(), [part]) for part in PARTS}


def rows_of(part: str) -> tuple[list[dict[str, Any]], Summary]:
    return [{"key": f"{part}-{number}"} for number in range(3)], Summary(rows=3, kept=3)


def make(root: Path, **changed: Any) -> Summary:
    arguments: dict[str, Any] = {"recipes": RECIPES, "make": lambda part, _: rows_of(part)} | changed
    return make_parts(Collection(root), Table.CANDIDATES, Config(), **arguments)


STEP_BY_STEP = """
import sys
from pathlib import Path
from tests.scrape.collection.test_turns import make, rows_of
def ask(part, progress):
    print(part, flush=True)
    if sys.stdin.readline() == "fail\\n":
        raise OSError("disk trouble")
    return rows_of(part)
print(make(Path(sys.argv[1]), make=ask).parts_done)
"""


class Run:
    """A process that tells which part it has begun, and makes it when it is told to."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-c", STEP_BY_STEP, str(root)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, what: str = "make") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()

    def end(self) -> int:
        self.process.communicate()
        return self.process.returncode


@pytest.mark.slow
def test_two_processes_make_each_part_once_and_take_over_from_a_killed_one(tmp_path: Path) -> None:
    one = Run(tmp_path)
    assert one.says() == "00000"
    two, three = Run(tmp_path), Run(tmp_path)
    assert {two.says(), three.says()} == {"00001", "00002"}
    one.tell()
    assert one.says() == "00003"
    one.tell()  # and waits for the others
    two.process.kill()
    assert one.says() in ("00001", "00002")
    one.tell()
    three.tell()
    assert (one.says(), three.says()) == ("3", "1")
    assert [run.end() for run in (one, two, three)] == [0, -9, 0]
    made = Collection(tmp_path)
    assert {part: made.recipe(Table.CANDIDATES, part) for part in PARTS} == RECIPES
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.slow
def test_a_part_that_fails_in_one_process_is_made_by_another(tmp_path: Path) -> None:
    one, two = Run(tmp_path), Run(tmp_path)
    assert {one.says(), two.says()} == {"00000", "00001"}
    one.tell("fail")
    for _ in range(2):
        assert one.says() in ("00002", "00003")
        one.tell()
    two.tell()
    assert two.says() in ("00000", "00001")
    two.tell()
    assert two.says() == "2"
    assert (one.end(), two.end()) == (1, 0)
    assert Collection(tmp_path).parts(Table.CANDIDATES) == PARTS


def test_a_process_that_was_taken_for_dead_commits_nothing(tmp_path: Path) -> None:
    """It slept: when it goes on, its part may be another's."""

    def sleep(part: str, _: object) -> tuple[list[dict[str, Any]], Summary]:
        for file in (tmp_path / ".workers").glob("worker-*"):
            file.unlink()
        return rows_of(part)

    with pytest.raises(Exception, match="gave no sign of life"):
        make(tmp_path, make=sleep)
    assert not Collection(tmp_path).parts(Table.CANDIDATES)
    assert make(tmp_path).parts_done == len(PARTS)


@pytest.mark.slow
def test_in_order_a_part_is_prepared_while_those_before_it_are_made_elsewhere(tmp_path: Path) -> None:
    one, prepared, made = Run(tmp_path), list[str](), list[str]()
    assert one.says() == "00000"

    def prepare(part: str, _: object) -> None:
        prepared.append(part)
        if part == PARTS[-1]:
            one.process.kill()

    def make_one(part: str, _: object) -> tuple[list[dict[str, Any]], Summary]:
        made.append(part)
        return rows_of(part)

    make(tmp_path, make=make_one, order=Order(prepare))
    assert (prepared, made) == (PARTS[1:], PARTS)
    one.end()


KILLS = """
import os, random, signal, sys, traceback
from pathlib import Path
from tests.scrape.collection.test_turns import Collection, Table, make, rows_of

left = -1
def count(event, arguments):
    global left
    writes = ("open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.utime")
    if event in writes and str(arguments[0]).startswith((sys.argv[1], "worker-", "lease-", "entering-")):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)

def fork(root, kill_at=-1):
    # makes the parts in a process that ends with the number of those it made
    global left
    child = os.fork()
    if child == 0:
        left, code = kill_at, 99
        try:
            code = make(root).parts_done
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child

def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

killed = 0
for number in range(int(sys.argv[2])):
    root = Path(sys.argv[1], str(number))
    children = fork(root, random.randrange(1, 60)), fork(root)
    first, second = map(wait, children)
    assert second in range(5) and (first == -9 or first + second == 4), (first, second)
    killed += first == -9
    assert (again := wait(fork(root))) == 0, again
    assert not [file for name in (".tmp-*", "lease-*", "worker-*", "entering-*") for file in root.rglob(name)]
print(killed)
"""


@pytest.mark.slow
def test_one_of_two_processes_is_killed_anywhere_and_the_tables_are_those_of_a_quiet_run(tmp_path: Path) -> None:
    make(tmp_path / "quiet")
    rounds = 10
    done = subprocess.run([sys.executable, "-c", KILLS, str(tmp_path), str(rounds)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    quiet = Collection(tmp_path / "quiet").stamps(Table.CANDIDATES)
    assert all(Collection(tmp_path / str(number)).stamps(Table.CANDIDATES) == quiet for number in range(rounds))
