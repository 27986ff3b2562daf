"""What tracking costs: parts of nothing, and a finished project, tracked by Prefect and not, also with its server away.

    python -m bench.flows

Prints a table and, as its last line, JSON: ms_a_part (tracked minus untracked, of PARTS parts), ms_a_part_away (the
same while the server answers nothing), noop_extra_s (`dreamloom run` of a finished project), and noop_extra_cpu_s (the
same in seconds of CPU time, which other load on the machine changes little).
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from bench.flows_world import HOUSE, Server, run_command
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.flows.chain.steps import PartsStep
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.parts import make_parts

PARTS = 100


class NoConfig(StageConfig):
    """Nothing to set."""


@dataclass(frozen=True)
class Nothing(PartsStep):
    """A step whose parts are empty."""

    stage = "ingest"
    table = Table.RECORDS

    def recipes(self) -> Mapping[str, str]:
        """Returns a recipe for each part."""
        return {f"{number:05d}": "nothing" for number in range(PARTS)}

    def make_parts(self, progress: Progress, parts: Sequence[str] | None) -> Summary:
        """Makes these parts; None: all that are stale."""
        recipes = self.recipes()
        return make_parts(self.collection, self.table, NoConfig(), recipes, lambda *_: ([], Summary()), progress, parts)


def main() -> None:
    """Measures, and prints the table and the line of JSON."""
    with tempfile.TemporaryDirectory(prefix="bench-flows-") as folder:
        os.environ |= {"PREFECT_HOME": f"{folder}/prefect", "PREFECT_SERVER_ANALYTICS_ENABLED": "0"}
        os.environ |= {"DO_NOT_TRACK": "1", "PREFECT_LOGGING_LEVEL": "ERROR"}
        project = _finished_project(Path(folder))
        server = Server(Path(folder))
        try:
            os.environ["PREFECT_API_URL"] = server.api
            seconds = {
                "parts, untracked": _untracked(Path(folder) / "untracked"),
                **_tracked(Path(folder), server),
            }
            for name, flag in (("finished, untracked", "--no-track"), ("finished, tracked", "--track")):
                seconds[name], seconds[f"{name}, of CPU"] = _command(project, flag)
        finally:
            server.close()
    for name, value in seconds.items():
        print(f"{name:<32}{value:8.2f} s")
    base = seconds["parts, untracked"]
    result = {
        "ms_a_part": 1000 * (seconds["parts, tracked"] - base) / PARTS,
        "ms_a_part_away": 1000 * (seconds["parts, tracked, server away"] - base) / PARTS,
        "noop_extra_s": seconds["finished, tracked"] - seconds["finished, untracked"],
        "noop_extra_cpu_s": seconds["finished, tracked, of CPU"] - seconds["finished, untracked, of CPU"],
    }
    print(json.dumps({name: round(value, 2) for name, value in result.items()}))
    sys.stdout.flush()
    os._exit(0)  # Prefect's threads would wait for the server


def _untracked(folder: Path) -> float:
    begun = time.monotonic()
    Nothing(Collection(folder)).run(silent)
    return time.monotonic() - begun


def _tracked(folder: Path, server: Server) -> dict[str, float]:
    """The seconds of a tracked step, and of one while the server answers nothing."""
    from prefect import flow

    from dreamloom.flows.chain.steps import Outcome
    from dreamloom.flows.server.tracking import perform, run_parts
    from dreamloom.flows.terminal.terminal import Terminal

    seconds = {}

    def work() -> list[Outcome]:
        outcomes = []
        with Terminal() as terminal:
            for name in ("parts, tracked", "parts, tracked, server away"):
                with server.away() if "away" in name else nullcontext():
                    begun = time.monotonic()
                    outcomes.append(run_parts(Nothing(Collection(folder / name)), terminal))
                    seconds[name] = time.monotonic() - begun
        return outcomes

    @flow
    def bench() -> Any:
        return perform(work, lambda _: "measured")

    bench(return_state=True)
    return seconds


def _command(project: Path, flag: str) -> tuple[float, float]:
    """The seconds of `run`, and those of CPU time."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run_command("run", str(project), flag)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begun, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _finished_project(folder: Path) -> Path:
    """A project of a few images, trained for two steps on the demo's model."""
    for name, blue in (("learn", 0), ("keep", 255)):
        (folder / name).mkdir()
        for number in range(6):
            Image.new("RGB", (64, 64), (40 * number, 90, blue)).save(folder / name / f"a color_({number}).png")
    content = {
        "name": "finished",
        "workspace": "work",
        "sources": {
            "learn": {"kind": "folder", "role": "training", "path": "learn"},
            "keep": {"kind": "folder", "role": "ground_truth", "path": "keep"},
        },
        "train": {"base": str(HOUSE / "demo" / "models" / "stable-diffusion"), "resolution": 64, "batch_size": 2}
        | {"max_train_steps": 2, "sample_steps": 1, "eval_timesteps": 1, "num_workers": 1},
    }
    project = folder / "project.yaml"
    project.write_text(yaml.safe_dump(content))
    _command(project, "--no-track")
    return project


if __name__ == "__main__":
    main()
