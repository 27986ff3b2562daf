"""What Ray costs and brings: parts that each wait, made by this process, and by workers on Ray.

    python -m bench.ray                                     # 100 parts of 200 ms, 2 workers
    python -m bench.ray --busy                              # parts that compute all the while

Prints a table and, as its last line, JSON: one_process_s, ray_s (with the start of the workers), speedup (the first by
the second), overhead_ms_a_part (of a worker's time, beyond what one process takes for a part; the start of the workers
is in it), start_s (of Ray on this machine, once for a command).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.flows.chain.ray_start import connect
from dreamloom.flows.chain.steps import PartsStep
from dreamloom.flows.project.ray_config import RayConfig
from dreamloom.scrape.collection import Collection, Row, Table
from dreamloom.scrape.collection.parts import make_parts


class NoConfig(StageConfig):
    """Nothing to set."""


@dataclass(frozen=True)
class Waiting(PartsStep):
    """A step whose parts take their time."""

    count: int
    seconds: float
    busy: bool
    stage = "ingest"
    table = Table.RECORDS

    def recipes(self) -> Mapping[str, str]:
        """Returns a recipe for each part."""
        return {f"{number:05d}": "waiting" for number in range(self.count)}

    def make_parts(self, progress: Progress, parts: Sequence[str] | None) -> Summary:
        """Makes these parts; None: all that are stale."""
        return make_parts(self.collection, self.table, NoConfig(), self.recipes(), self._wait, progress, parts)

    def _wait(self, part: str, progress: Progress) -> tuple[list[Row], Summary]:
        end = time.thread_time() + self.seconds
        if not self.busy:
            time.sleep(self.seconds)
        while self.busy and time.thread_time() < end:
            pass
        progress(1, 1)
        return [], Summary()


def main() -> None:
    """Measures, and prints the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=100)
    parser.add_argument("--part-s", type=float, default=0.2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--busy", action="store_true", help="compute instead of waiting; needs as many free cores")
    arguments = parser.parse_args()
    config = RayConfig(num_workers=arguments.workers)
    with tempfile.TemporaryDirectory(prefix="bench-ray-") as folder:

        def seconds(name: str, ray: RayConfig | None) -> float:
            begun = time.monotonic()
            place = Collection(Path(folder, name))
            Waiting(place, arguments.parts, arguments.part_s, arguments.busy, ray=ray).run(silent)
            return time.monotonic() - begun

        one = seconds("one", None)
        begun = time.monotonic()
        connect(config)
        start = time.monotonic() - begun
        many = seconds("ray", config)
    overhead = (many * arguments.workers - one) / arguments.parts
    print(f"{arguments.parts} parts of {1000 * arguments.part_s:.0f} ms, {'busy' if arguments.busy else 'waiting'}")
    for name, value in {"one process": one, f"Ray, {arguments.workers} workers": many, "Ray's start": start}.items():
        print(f"{name:<32}{value:8.2f} s")
    result = {
        "one_process_s": one,
        "ray_s": many,
        "speedup": one / many,
        "overhead_ms_a_part": 1000 * overhead,
        "start_s": start,
    }
    print(json.dumps({name: round(value, 2) for name, value in result.items()}))


if __name__ == "__main__":
    main()
