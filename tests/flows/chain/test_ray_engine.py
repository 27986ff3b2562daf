"""Stages on Ray: the tables are those of one process, also where a worker is killed; nothing imports Ray unasked."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Thread, current_thread
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.flows.chain.ray_start import connect
from dreamloom.flows.chain.steps import PartsStep
from dreamloom.flows.commands.cli import run
from dreamloom.flows.project.ray_config import RayConfig
from dreamloom.scrape.collection import Collection, Row, Table
from dreamloom.scrape.collection.parts import make_parts

HOUSE = Path(__file__).parents[3]


def test_without_ray_all_else_works_and_engine_ray_says_what_to_install(small: Any) -> None:
    small.change("engine", to="ray")
    code = """
import sys
sys.modules["ray"] = None  # as if it were not installed
from dreamloom.flows.commands.cli import run
local = run(["ingest", "folder", "local", "--path", "circles"])
print(local, run(["run", "--until", "ingest"]))
"""
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=small.folder, env=environment
    )
    assert done.stdout.splitlines()[-1] == "0 2", done.stderr
    assert "engine ray is not installed: pip install -e '.[ray]'" in done.stderr


@pytest.mark.parametrize("slow_starts", [3, 4])
def test_where_ray_starts_too_slowly_it_is_started_again_and_then_told(
    slow_starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def init(**_: object) -> None:
        events.append("init")
        if events.count("init") <= slow_starts:
            raise Exception("The current node timed out during startup. This could happen because some of the raylet")

    slow = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: events.append("shutdown"))
    monkeypatch.setitem(sys.modules, "ray", slow)
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    if slow_starts == 3:
        assert connect(RayConfig()) is slow
    else:
        with pytest.raises(UserError, match="Ray did not start on this machine, 4 times, as other programs keep it"):
            connect(RayConfig())
    assert events == ["init", "shutdown"] * slow_starts + ["init"] * (slow_starts == 3)


def test_sources_side_by_side_start_ray_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Thread] = []
    both = Barrier(2)

    def is_initialized() -> bool:
        if not started:
            with contextlib.suppress(BrokenBarrierError):  # with both inside, both would start it
                both.wait(timeout=0.2)
        return bool(started)

    slow = SimpleNamespace(is_initialized=is_initialized, init=lambda **_: started.append(current_thread()))
    monkeypatch.setitem(sys.modules, "ray", slow)
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(connect, [RayConfig()] * 2)) == [slow, slow]
    assert [thread.is_alive() for thread in started] == [True], "its processes die with the thread that started them"


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray on this machine, with two CPUs of its own count."""
    ray = pytest.importorskip("ray", reason="ray is not installed (the extra `ray`)")
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(HOUSE), "RAY_raylet_start_wait_time_s": "120"}
    ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_tables_are_those_of_one_process(small: Any, ray: Any) -> None:
    models = HOUSE / "demo" / "models"
    small.change("score", to={"model": str(models / "clip")})
    small.change("caption", to={"model": str(models / "blip"), "keep_kinds": []})
    small.change("sources", "circles", "part_rows", to=2)
    assert run(["run", str(small.file), "--until", "caption"]) == 0
    content = yaml.safe_load(small.file.read_text())
    ray_config = {"num_workers": 2}
    other = small.folder / "ray.yaml"
    other.write_text(yaml.safe_dump(content | {"workspace": "on ray", "engine": "ray", "ray": ray_config}))
    assert run(["run", str(other), "--until", "caption"]) == 0
    for name in ("circles", "squares"):
        here, there = (Collection(small.folder / place / "collections" / name) for place in ("work", "on ray"))
        for table in (Table.RECORDS, Table.SCORES, Table.CAPTIONS):
            assert there.stamps(table) == here.stamps(table) != []
        assert there.summary(Table.CAPTIONS).kept == 6


class NoConfig(StageConfig):
    """Nothing to set."""


@dataclass(frozen=True)
class Deadly(PartsStep):
    """A step of which one part kills the process that makes it first."""

    stage = "ingest"
    table = Table.RECORDS

    def recipes(self) -> Mapping[str, str]:
        return {f"{number:05d}": "deadly" for number in range(5)}

    def make_parts(self, progress: Progress, parts: Sequence[str] | None) -> Summary:
        return make_parts(self.collection, self.table, NoConfig(), self.recipes(), self._make, progress, parts)

    def _make(self, part: str, progress: Progress) -> tuple[list[Row], Summary]:
        killed = self.collection.root / "killed"
        if part == "00002" and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [{"key": part, "status": "ok", "text_kind": "none"}], Summary(rows=1, kept=1)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_its_part_is_made(tmp_path: Path, ray: Any) -> None:
    summary = Deadly(Collection(tmp_path), ray=RayConfig(num_workers=1)).run(silent).summary
    assert (tmp_path / "killed").exists()
    assert summary is not None
    assert (summary.kept, summary.parts_done, summary.parts_before) == (5, 5, 0)
    assert Deadly(Collection(tmp_path)).stale_parts() == []
