"""What all tests share: where the real data lies, and quiet, single-threaded libraries."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.powercut import PowerCut
from tests.s3 import S3, serve_s3

HOUSE = Path(__file__).parents[1]

os.environ["COLUMNS"] = "80"  # help pages are as wide as the terminal
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

settings.register_profile("same", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("random", deadline=None, derandomize=False, max_examples=60)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Gives hypothesis the same examples in the two runs of `make test`, and others in each other run."""
    is_same = config.option.markexpr in ("not slow", "slow")
    settings.load_profile("same" if is_same else "random")
    if not is_same and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = secrets.randbelow(2**32)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says how to see a run's random examples again."""
    if (seed := config.option.hypothesis_seed) is not None:
        terminalreporter.write_line(f"Examples of hypothesis: --hypothesis-seed={seed} gives them again.")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data; a test that needs it is skipped where it is missing."""
    folder = Path(os.environ.get("DREAMLOOM_SHARED", HOUSE.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"the real test data is not at {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's cache, for these tests alone; processes that a test starts have it too."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["DREAMLOOM_CACHE"] = str(folder)
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test alone, as other tests have the same addresses; and stores that are asked again at once."""
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("dreamloom.base.files.remote._FIRST_WAIT_S", 0.001)


_KILLER = """
import os, signal, sys
_left = {at}
def _count(event, args):
    global _left
    writes = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")
    if event in writes and str(args[0]).startswith({root!r}):
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(_count)
"""


class Crash:
    """Runs a script and kills it, -9, just before the nth time it opens, moves or removes a file under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, script: str, at: int) -> bool:
        """Whether the script was killed before it ended; a script that fails by itself fails the test."""
        code = _KILLER.format(at=at, root=str(self.root)) + script
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE, timeout=300)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode != 0


@pytest.fixture
def crash(tmp_path: Path) -> Crash:
    """Kills scripts at each of their writes in turn: the moments at which a run can die are counted, not guessed."""
    return Crash(tmp_path)


@pytest.fixture
def s3() -> Iterator[type[S3]]:
    """An S3 server with no object."""
    with serve_s3() as served:
        yield served


@pytest.fixture
def power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PowerCut:
    """Cuts the power while work is done on files below the folder `power.root`."""
    (tmp_path / "disk").mkdir()
    return PowerCut(tmp_path / "disk", monkeypatch)
