"""Makes the parts of a stage on Ray: workers on one machine or many lease them, as processes that share a folder do.

Each worker is an actor, so the models that it loads stay loaded, from part to part and for the next source. Ray places
the workers, gives them their GPUs, and starts one again that died; what it had leased is taken over by the others.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dreamloom.base.errors import StageFailed, UserError, leaves
from dreamloom.base.progress import Progress
from dreamloom.base.stage import Summary
from dreamloom.flows.chain.ray_start import connect
from dreamloom.flows.project.ray_config import RayConfig
from dreamloom.scrape.collection.turns import part_runner

_log = logging.getLogger(__name__)

_POLL_S = 0.5

Make = Callable[[Progress], Summary]
"""Makes the stale parts of a stage, unless others make them, and returns the summary of all parts."""


@dataclass
class Seen:
    """What a worker tells while it works."""

    done: int = 0
    total: int | None = None
    note: str = ""
    parts: list[str] = field(default_factory=list)
    """Those that it made, or failed at."""


class RayWorker:
    """The actor: makes parts until none is left, and tells how far it is."""

    def __init__(self) -> None:
        self._seen, self._guard = Seen(), threading.Lock()

    def work(self, make: Make) -> Summary | Exception:
        """Makes the parts that no other process makes. Returns what `make` does, or the error that it ends with."""
        token = part_runner.set(self._run_part)
        with self._guard:
            self._seen = Seen()
        try:
            return make(self._progress)
        except (UserError, StageFailed, ExceptionGroup) as error:
            return error
        finally:
            part_runner.reset(token)

    def seen(self) -> Seen:
        """Returns how far it is."""
        with self._guard:
            return replace(self._seen, parts=list(self._seen.parts))

    def _run_part(self, part: str, make: Callable[[], Summary]) -> Summary:
        try:
            return make()
        finally:
            with self._guard:
                self._seen.parts.append(part)

    def _progress(self, done: int, total: int | None, note: str = "") -> None:
        with self._guard:
            self._seen.done, self._seen.total, self._seen.note = done, total, note


def run_on_ray(
    title: str,
    make: Make,
    find_stale: Callable[[], Sequence[str]],
    config: RayConfig,
    progress: Progress,
    *,
    has_models: bool = False,
) -> Summary:
    """Makes the stale parts of a stage on Ray.

    Args:
        title: the stage and its source.
        make: is sent to each worker. The folders that it names must be the same on all their machines.
        find_stale: returns the parts to make; some.
        config: where, and with how many workers.
        progress: receives what the worker tells that is farthest.
        has_models: whether the stage has models, for which workers ask for GPUs.

    Returns:
        The summary of all parts. Its seconds are those that all workers took together.

    Raises:
        UserError: Ray is not installed, or its cluster is not there, or has no room for a worker; or as `make`.
        ExceptionGroup: some parts failed; the others are done.
    """
    ray, num_parts = connect(config), len(find_stale())
    options = _options(config, has_models)
    with _hired(ray, options, min(num_parts, _count_workers(ray, options, config))) as workers:
        results = _run(ray, title, make, workers, progress)
        workers[:] = [worker for place, worker in enumerate(workers) if not isinstance(results.get(place), _Lost)]
    summaries = [result for result in results.values() if isinstance(result, Summary)]
    errors = [leaf for result in results.values() if isinstance(result, Exception) for leaf in leaves(result)]
    if not summaries or (errors and find_stale()):
        raise ExceptionGroup(f"parts of {title} failed", [error for error in errors if isinstance(error, Exception)])
    for error in errors:
        _log.info("%s, which another worker made: %s", title, error)
    existed = summaries[0].parts_done + summaries[0].parts_before - num_parts
    seconds = sum(summary.seconds for summary in summaries)
    return replace(summaries[0], parts_done=num_parts, parts_before=existed, seconds=seconds)


_idle: list[tuple[Mapping[str, Any], list[Any]]] = []
"""Options and workers of a stage that is done."""
_busy = 0
"""Stages that have workers now."""
_guard = threading.Lock()


@contextlib.contextmanager
def _hired(ray: Any, options: Mapping[str, Any], count: int) -> Iterator[list[Any]]:
    """Yields workers: idle ones that ask for the same, with the models that they have loaded, or else new ones.

    Afterwards they are idle, unless another stage may wait for their room.
    """
    global _busy
    with _guard:
        _busy += 1
        workers = next((idle for asked, idle in _idle if asked == options), [])
        _idle[:] = [(asked, idle) for asked, idle in _idle if idle is not workers]
    end_idle_workers()
    actor = ray.remote(**options)(RayWorker)
    workers += [actor.remote() for _ in range(count - len(workers))]
    done = False
    try:
        yield workers
        done = True
    finally:
        with _guard:
            _busy -= 1
            if done and not _busy:
                _idle.append((options, workers))
        if not done or _busy:
            _end(workers)


def end_idle_workers() -> None:
    """Ends the workers of stages that are done, which frees their memory and their GPUs."""
    with _guard:
        idle, _idle[:] = list(_idle), []
    for _, workers in idle:
        _end(workers)


def _end(workers: Sequence[Any]) -> None:
    import ray

    for worker in workers:
        ray.kill(worker)


def _options(config: RayConfig, has_models: bool) -> dict[str, Any]:
    return {
        "num_cpus": config.num_cpus,
        "num_gpus": config.num_gpus if has_models else 0,
        "resources": dict(config.resources),
        "max_restarts": config.max_restarts,
        "max_concurrency": 2,  # it answers `seen` while it works
        "scheduling_strategy": "SPREAD",
    }


def _count_workers(ray: Any, options: Mapping[str, Any], config: RayConfig) -> int:
    """Returns how many workers the cluster has room for, at most as many as were asked for.

    Raises:
        UserError: not for one.
    """
    asked = {"CPU": options["num_cpus"], "GPU": options["num_gpus"], **options["resources"]}
    asked = {name: amount for name, amount in asked.items() if amount}
    there: Mapping[str, float] = ray.cluster_resources()
    room: int = min(math.floor(there.get(name, 0) / amount) for name, amount in asked.items())
    if room < 1:
        found = ", ".join(f"{there.get(name, 0):g} {name}" for name in asked)
        wanted = ", ".join(f"{amount:g} {name}" for name, amount in asked.items())
        raise UserError(
            f"ray: each worker asks for {wanted}, and the cluster has {found}; lower num_cpus, num_gpus or resources."
        )
    return min(room, config.num_workers or room)


class _Lost(RuntimeError):
    """A worker that died more often than it is started again."""


def _run(
    ray: Any, title: str, make: Make, workers: Sequence[Any], progress: Progress
) -> Mapping[int, Summary | Exception]:
    """Returns what each worker ended with, by its place; a mistake of the user's ends all.

    Raises:
        UserError: as `make`.
        StageFailed: as `make`.
    """
    running = {worker.work.options(name=title).remote(make): place for place, worker in enumerate(workers)}
    watch, results = _Watch(ray, workers, progress), dict[int, Summary | Exception]()
    while running:
        done, _ = ray.wait(list(running), timeout=_POLL_S)
        watch.show()
        for reference in done:
            place = running.pop(reference)
            try:
                result: Summary | Exception = ray.get(reference)
            except ray.exceptions.ActorUnavailableError:  # it died, and is being started again
                time.sleep(_POLL_S)
                running[workers[place].work.options(name=title).remote(make)] = place
                continue
            except ray.exceptions.RayActorError as error:
                result = _Lost(f"A worker died more often than ray.max_restarts allows: {error}")
            if isinstance(result, UserError | StageFailed):
                raise result
            results[place] = result
        if any(isinstance(result, Summary) for result in results.values()):
            # all parts are made, so nobody waits for workers for which there is no room yet
            running = {reference: place for reference, place in running.items() if watch.has_begun(place)}
    return results


class _Watch:
    """Shows how far the workers are."""

    def __init__(self, ray: Any, workers: Sequence[Any], progress: Progress) -> None:
        self._ray, self._workers, self._progress = ray, workers, progress
        self._asked = [worker.seen.remote() for worker in workers]
        self._seen = [Seen() for _ in workers]
        self._shown: set[str] = set()
        self._begun: set[int] = set()

    def has_begun(self, place: int) -> bool:
        """Whether a worker has ever answered."""
        return place in self._begun

    def show(self) -> None:
        """Shows what the workers have told since they were last asked, and asks them again."""
        answered, _ = self._ray.wait(self._asked, num_returns=len(self._asked), timeout=0)
        for place, reference in enumerate(self._asked):
            if reference in answered:
                try:
                    self._seen[place] = self._ray.get(reference)
                    self._begun.add(place)
                except self._ray.exceptions.RayError:  # it is started again, or lost, which its work will tell
                    continue
                finally:
                    self._asked[place] = self._workers[place].seen.remote()
        for part in sorted({part for seen in self._seen for part in seen.parts} - self._shown):
            self._shown.add(part)
            part_runner.get()(part, Summary)  # whoever shows parts shows that it is done
        farthest = max(self._seen, key=lambda seen: seen.done / (seen.total or math.inf))
        note = f"{len(self._workers)} workers: {farthest.note}"
        self._progress(farthest.done, farthest.total, note)
