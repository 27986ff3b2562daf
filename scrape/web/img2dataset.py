"""Downloads a part through img2dataset 1.47: many processes, or many machines by Spark or Ray (docs/scale.md).

img2dataset only downloads. URLs that must not be requested are left out beforehand, its shards hold the original bytes,
and images are stored here as always. Rows that it fails at, for reasons that may be its own, are left to the crawler.
"""

import asyncio
import contextlib
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from yarl import URL

from dreamloom.base.errors import UserError
from dreamloom.base.images.pixels import ImageError
from dreamloom.base.stop import run_stoppable, stoppable
from dreamloom.base.text import brief
from dreamloom.base.threads import map_ordered
from dreamloom.scrape.collection import Row, Status
from dreamloom.scrape.datasets.img2dataset_errors import status_from_message
from dreamloom.scrape.datasets.webdataset import Sample, read_shard
from dreamloom.scrape.web.address import PublicResolver, check_url, resolver_error_status, system_resolver
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.http import Fetcher
from dreamloom.scrape.web.job import PartJob
from dreamloom.scrape.web.optout import REFUSALS, ROBOT
from dreamloom.scrape.web.outcome import RowDropped, make_row, unforeseen_errors_cost_one_row
from dreamloom.scrape.web.robots import RobotsCache
from dreamloom.scrape.web.shared import source_of
from dreamloom.scrape.web.store import store_image

_SHARD_ROWS = 1_000
_ROUNDS = 2
"""How often it is started until all shards are finished."""
_RUN = """
import json, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that Ray ends its processes, which are in other groups
from img2dataset import download
arguments = json.load(open(sys.argv[1]))
if arguments["distributor"] == "pyspark":  # by Spark's settings; img2dataset would create a local session
    from pyspark.sql import SparkSession
    SparkSession.builder.appName("dreamloom").getOrCreate()
download(**arguments)
"""
_KEY = "candidate"
_STOP_GRACE_S = 3.0
"""Seconds that img2dataset has to end its own processes."""

_FAILURES_OF_ITS_OWN = {
    *(Status.TIMEOUT, Status.CONNECTION, Status.DNS_TEMPORARY, Status.SHORT_BODY, Status.HTTP_429, Status.HTTP_5XX),
    *(Status.BAD_URL, Status.TLS),
}
"""Failures that dreamloom may not have: img2dataset neither quotes spaces in URLs nor waits when a host asks it to."""


def fetch_with_img2dataset(job: PartJob) -> None:
    """Journals the rows of all candidates that img2dataset downloads, or that must not be requested.

    After a kill, finished shards are not downloaded again.

    Raises:
        UserError: img2dataset, or its distributor, is not installed.
        ChildProcessError: img2dataset ended with an error.
    """
    check_installed(job.config)
    finished = job.finished_rows
    first = {source_of(row): row for row in reversed(job.candidates)}  # the others get its image afterwards
    candidates = {row["key"]: row for row in reversed(first.values()) if row["key"] not in finished}
    consents: dict[str, str | None] = {}
    run_stoppable(_journal_forbidden(job, candidates, consents))
    allowed = {key: candidate for key, candidate in candidates.items() if key in consents}
    if not allowed:
        return
    folder = job.collection.root / "bulk" / job.part
    _write_urls(folder, list(allowed.values()))
    for _ in range(_ROUNDS):
        if _is_unfinished(folder, len(allowed)):
            _run(job, folder, len(allowed))
    num_threads = job.config.decode_threads or os.cpu_count() or 1
    make = partial(_store_sample, job, allowed, consents)
    for row in map_ordered(make, _read_samples(folder), num_threads, 4 * num_threads):
        if row["status"] not in _FAILURES_OF_ITS_OWN:
            job.journal.add(row)
    shutil.rmtree(folder)


def check_installed(config: ScrapeConfig) -> None:
    """Checks that everything the engine needs is installed.

    Raises:
        UserError: img2dataset, or its distributor, is not installed.
    """
    names = ("img2dataset", "imghdr")  # img2dataset imports imghdr, which Python 3.13 left out and the extra brings
    if any(importlib.util.find_spec(name) is None for name in names):
        raise UserError(
            "engine img2dataset is not installed: pip install -e '.[bulk]' in dreamloom's clone, or leave engine out."
        )
    if config.distributor != "multiprocessing" and importlib.util.find_spec(config.distributor) is None:
        raise UserError(f"distributor {config.distributor} is not installed: pip install {config.distributor}.")
    if config.distributor == "pyspark" and not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        raise UserError("distributor pyspark needs Java, which is not installed: apt install default-jre-headless.")


# Before: URLs that must not be requested


async def _journal_forbidden(job: PartJob, candidates: Mapping[str, Row], consents: dict[str, str | None]) -> None:
    """Journals the candidates that must not be requested: other schemes, private addresses, disallowed by robots.txt.

    Args:
        job: the part.
        candidates: by key.
        consents: filled, for the keys of all other candidates, with what robots.txt said.
    """
    config = job.config
    allow_private = config.allow_private_addresses
    resolver = PublicResolver(system_resolver(), allow_private_addresses=allow_private)
    semaphore = asyncio.Semaphore(config.concurrency)
    async with Fetcher(config) as fetcher:
        robots = RobotsCache(fetcher, allow_private_addresses=allow_private)
        host_checks: dict[str, asyncio.Task[None]] = {}

        async def judge(text: str | None) -> str | None:
            url = check_url(text, allow_private_addresses=allow_private)
            async with semaphore:
                host = url.raw_host or ""
                if host not in host_checks:
                    host_checks[host] = asyncio.create_task(_check_host(resolver, url))
                await asyncio.shield(host_checks[host])
                return await (await robots.rules(url)).verdict(url) if config.respect_optout else None

        async def check(candidate: Row) -> None:
            try:
                with unforeseen_errors_cost_one_row(candidate["url"]):
                    verdict = await judge(candidate["url"])
            except RowDropped as dropped:
                if dropped.status not in _FAILURES_OF_ITS_OWN:
                    job.journal.add(make_row(candidate, {}, dropped))
            else:
                consents[candidate["key"]] = verdict

        await asyncio.gather(*map(check, candidates.values()))
    await resolver.close()


async def _check_host(resolver: PublicResolver, url: URL) -> None:
    try:
        await resolver.resolve(url.raw_host or "", url.port or 80)
    except OSError as error:
        raise RowDropped(*resolver_error_status(error)) from error


# While img2dataset runs


def _write_urls(folder: Path, candidates: Sequence[Row]) -> None:
    """Writes the list of URLs, and removes shards of another list."""
    urls = [str(check_url(row["url"], allow_private_addresses=True)) for row in candidates]
    table = pa.table({"url": urls, _KEY: [row["key"] for row in candidates]})
    path = folder / "urls.parquet"
    if path.exists() and not pq.read_table(path, partitioning=None).equals(table):
        shutil.rmtree(folder)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _finished_shards(folder: Path) -> list[Path]:
    """Returns the statistics files that img2dataset writes once a shard is finished, sorted."""
    return sorted((folder / "shards").glob("*_stats.json"))


def _is_unfinished(folder: Path, num_rows: int) -> bool:
    return len(_finished_shards(folder)) < math.ceil(num_rows / _SHARD_ROWS)


def _run(job: PartJob, folder: Path, num_rows: int) -> None:
    """Runs img2dataset to its end, in processes of its own."""
    (folder / "arguments.json").write_text(json.dumps(_arguments(folder, job.config)))
    command = [sys.executable, "-c", _RUN, str(folder / "arguments.json")]
    environment = {
        "PYSPARK_PYTHON": sys.executable,  # by default Spark's processes run whatever is called python3
        **os.environ,
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            with stoppable(process.terminate):
                while process.poll() is None:
                    _report(job, len(_finished_shards(folder)), num_rows)
                    time.sleep(0.5)
        finally:
            _end(process)
    if process.returncode:
        lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
        raise ChildProcessError(
            f"img2dataset ended with exit code {process.returncode}: {lines[-1] if lines else 'no message'}"
        )


def _report(job: PartJob, num_finished: int, num_rows: int) -> None:
    num_shards = math.ceil(num_rows / _SHARD_ROWS)
    note = f"img2dataset: {num_finished} of {num_shards} shards"
    job.progress(min(num_finished * _SHARD_ROWS, num_rows), len(job.candidates), note)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends img2dataset and its processes, after Ctrl-C or an error here."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def _arguments(folder: Path, config: ScrapeConfig) -> dict[str, Any]:
    """Returns the arguments of img2dataset.download."""
    num_processes = config.processes or os.cpu_count() or 1
    return {
        "url_list": str(folder / "urls.parquet"),
        "input_format": "parquet",
        "output_folder": str(folder / "shards"),
        "output_format": "webdataset",
        "disable_all_reencoding": True,
        "extract_exif": False,
        "save_additional_columns": [_KEY],
        "number_sample_per_shard": _SHARD_ROWS,
        "processes_count": num_processes,
        "thread_count": max(1, config.concurrency // num_processes),
        "timeout": round(config.timeout_s) or 1,
        "retries": config.retries,
        "distributor": config.distributor,
        "user_agent_token": ROBOT,
        "disallowed_header_directives": sorted(REFUSALS) if config.respect_optout else [],
    }


# After: its shards


def _read_samples(folder: Path) -> Iterator[Sample]:
    """Yields the samples of all finished shards; those of unfinished or broken shards count as not requested."""
    for stats in _finished_shards(folder):
        shard = stats.with_name(stats.name.replace("_stats.json", ".tar"))
        yield from (sample for sample in read_shard(shard, on_damage=lambda _: None) if _KEY in sample.metadata)


def _store_sample(
    job: PartJob, candidates: Mapping[str, Row], consents: Mapping[str, str | None], sample: Sample
) -> Row:
    """Stores a sample's image. Returns the row of its candidate."""
    candidate = candidates[sample.metadata[_KEY]]
    consent = consents[candidate["key"]]
    if sample.image_extension is None:
        message = brief(sample.metadata.get("error_message") or "it gave no picture")
        dropped = RowDropped(status_from_message(message), f"img2dataset: {message}")
        return make_row(candidate, {"consent": consent}, dropped)
    try:
        body = sample.read(sample.image_extension)
    except ImageError as error:
        return make_row(candidate, {"consent": consent}, RowDropped(Status.SHORT_BODY, error.detail))
    max_bytes = job.config.max_bytes
    if not body:
        return make_row(candidate, {"consent": consent}, RowDropped(Status.EMPTY))
    if len(body) > max_bytes:
        dropped = RowDropped(Status.TOO_LARGE, f"more than {max_bytes} bytes")
        return make_row(candidate, {"consent": consent}, dropped)
    return store_image(job.image_folder, candidate, body, consent, job.config, lambda _: False)
