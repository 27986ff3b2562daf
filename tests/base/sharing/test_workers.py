"""Workers: who may work in a folder beside whom, and how the dead are told from the living."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.sharing import workers
from dreamloom.base.sharing.workers import FOLDER, Worker, work_in

HOLD = """
import sys
from pathlib import Path
from dreamloom.base.sharing.workers import work_in
with work_in(Path(sys.argv[1]), eval(sys.argv[2])):
    print(flush=True)
    sys.stdin.readline()
"""


def start(folder: Path, work: dict[str, str] | None) -> subprocess.Popen[bytes]:
    """A process that works in a folder until it is told to end."""
    command = [sys.executable, "-c", HOLD, str(folder), repr(work)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_others_are_refused_unless_they_do_the_same_and_a_killed_one_is_in_nobodys_way(tmp_path: Path) -> None:
    other = start(tmp_path, {"table": "scores", "00000": "recipe"})
    refused: list[dict[str, str] | None] = [None, {"table": "captions"}, {"table": "scores", "00000": "another"}]
    for work in refused:
        with pytest.raises(UserError, match=f"in use by another run .process {other.pid}"), work_in(tmp_path, work):
            pass
    for work in ({"table": "scores", "00000": "recipe"}, {"table": "scores", "00007": "x"}):
        with work_in(tmp_path, work) as worker:
            assert worker.count() == 2
            with pytest.raises(UserError, match="in use by another run"), work_in(tmp_path):
                pass
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    with work_in(tmp_path) as worker:
        assert worker.count() == 1


def test_a_folder_stays_taken_until_the_last_block_of_a_process_ends(tmp_path: Path) -> None:
    def is_free() -> bool:
        code = (
            "from dreamloom.base.sharing.workers import *; import sys; from pathlib import Path\n"
            "with work_in(Path(sys.argv[1])): pass"
        )
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True).returncode == 0

    with work_in(tmp_path):
        with work_in(tmp_path):
            assert not is_free()
        assert not is_free()
    assert is_free()


def test_a_fork_does_not_keep_its_dead_parent_alive(tmp_path: Path) -> None:
    code = """
import os, sys, time
from pathlib import Path
from dreamloom.base.sharing.workers import work_in
with work_in(Path(sys.argv[1])):
    if os.fork() == 0:
        print(flush=True)
        sys.stdin.readline()
        os._exit(0)
    os.kill(os.getpid(), 9)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.wait() == -signal.SIGKILL
    assert parent.stdout is not None
    assert parent.stdout.readline()  # the fork runs
    with work_in(tmp_path) as worker:
        assert worker.count() == 1
    parent.communicate(b"\n")


def test_of_a_process_on_another_machine_it_is_found_out_whether_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_LOOK_S", 0)
    seconds = [0.0]
    other = Worker(tmp_path, {"table": "scores"}, machine="there")

    def clock() -> float:
        seconds[0] += 10
        if seconds[0] < 30:
            os.utime(tmp_path / FOLDER / other.file, (seconds[0], seconds[0]))  # with a clock of 1970
        return seconds[0]

    with pytest.raises(UserError, match="in use by another run"):
        Worker(tmp_path, None, machine="here", clock=clock)
    alone = Worker(tmp_path, None, machine="here", clock=clock)  # as the other gives no more signs
    assert alone.count() == 1
    alone.leave()
    other.leave()
