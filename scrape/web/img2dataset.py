"""A part's addresses through img2dataset 1.47: many processes, or many machines by Spark or Ray (docs/scale.md).

It fetches, and nothing else: what it must not fetch is left out before, its shards hold the bytes as they came, and
images are made of them here as ever. Whatever it failed at, for reasons that may be its own, is left to the scraper.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from yarl import URL

from dreamloom.base.errors import UserError
from dreamloom.base.pixels import ImageError
from dreamloom.base.progress import Progress
from dreamloom.base.stop import run_stoppable, stoppable
from dreamloom.base.threads import map_ordered
from dreamloom.scrape.collection import Collection, Row, Status
from dreamloom.scrape.collection.journal import Journal
from dreamloom.scrape.datasets.webdataset import Sample, read_shard, status_from_message
from dreamloom.scrape.web.address import PublicResolver, checked_url, resolver_status, system_resolver
from dreamloom.scrape.web.dedup import row_of
from dreamloom.scrape.web.http import Fetcher
from dreamloom.scrape.web.optout import REFUSALS, ROBOT
from dreamloom.scrape.web.outcome import Dropped
from dreamloom.scrape.web.robots import Robots
from dreamloom.scrape.web.store import store_picture

if TYPE_CHECKING:
    from dreamloom.scrape.web.config import ScrapeConfig

_SHARD_ROWS = 1_000
_ROUNDS = 2
"""How often it is begun, where it does not finish all shards."""
_RUN = """
import json, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # Ray then ends its processes, which lie in other groups
from img2dataset import download
arguments = json.load(open(sys.argv[1]))
if arguments["distributor"] == "pyspark":  # Spark's own settings say where; img2dataset's own session is of one machine
    from pyspark.sql import SparkSession
    SparkSession.builder.appName("dreamloom").getOrCreate()
download(**arguments)
"""
_KEY = "candidate"
_GRACE_S = 3.0
"""What it may take to end its own processes."""

_ITS_OWN = {
    *(Status.TIMEOUT, Status.CONNECTION, Status.DNS_TEMPORARY, Status.SHORT_BODY, Status.HTTP_429, Status.HTTP_5XX),
    *(Status.BAD_URL, Status.TLS),
}
"""What another program may not fail at: it neither quotes spaces in addresses nor waits when a host asks it to."""


def fetch_in_bulk(
    collection: Collection,
    part: str,
    config: "ScrapeConfig",
    candidates: Sequence[Row],
    there: Mapping[str, Row],
    journal: Journal,
    progress: Progress,
) -> None:
    """Journals the rows of all candidates that img2dataset brought, or that need not be asked.

    What was fetched when a run was killed is not fetched again, a shard at a time.

    Args:
        there: rows by key that are known.

    Raises:
        UserError: img2dataset, or what distributes it, is not installed.
        ChildProcessError: it ended with an error.
    """
    check(config)
    by_key = {row["key"]: row for row in candidates if row["key"] not in there and row["key"] not in journal.rows}
    folder = collection.root / "bulk" / part
    consents: dict[str, str | None] = {}
    run_stoppable(_sort_out(by_key, config, consents, journal))
    left = [key for key in by_key if key in consents]
    if not left:
        return
    _write_plan(folder, [by_key[key] for key in left])
    for _ in range(_ROUNDS):
        if _unfinished(folder, len(left)):
            _run(folder, config, len(left), len(candidates), progress)
    make = partial(_row, by_key, consents, collection.image_folder(part), config)
    threads = config.decode_threads or os.cpu_count() or 1
    for row in map_ordered(make, _samples(folder), threads, 4 * threads):
        if row["status"] not in _ITS_OWN:
            journal.add(row)
    shutil.rmtree(folder)


def check(config: "ScrapeConfig") -> None:
    """Says what is missing.

    Raises:
        UserError: img2dataset, or what distributes it, is not installed.
    """
    if sys.version_info >= (3, 13):
        raise UserError("img2dataset 1.47 needs Python 3.12 or older; leave engine out.")
    if importlib.util.find_spec("img2dataset") is None:
        raise UserError("engine img2dataset is not installed: pip install 'dreamloom[bulk]', or leave engine out.")
    if config.distributor != "multiprocessing" and importlib.util.find_spec(config.distributor) is None:
        raise UserError(f"distributor {config.distributor} is not installed: pip install {config.distributor}.")
    if config.distributor == "pyspark" and not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        raise UserError("distributor pyspark needs Java, which is not installed: apt install default-jre-headless.")


# Before: what it must not ask


async def _sort_out(
    rows: Mapping[str, Row], config: "ScrapeConfig", consents: dict[str, str | None], journal: Journal
) -> None:
    """Journals what must not be asked: other schemes, private addresses, what robots.txt disallows.

    Args:
        consents: filled with what the hosts of all others said of use.
    """
    resolver = PublicResolver(system_resolver(), allow_private_addresses=config.allow_private_addresses)
    gate = asyncio.Semaphore(config.concurrency)
    async with Fetcher(config) as fetcher:
        robots = Robots(fetcher, allow_private_addresses=config.allow_private_addresses)
        hosts: dict[str, asyncio.Task[None]] = {}

        async def sort_out(row: Row) -> None:
            try:
                address = checked_url(row["url"], allow_private_addresses=config.allow_private_addresses)
                async with gate:
                    host = address.raw_host or ""
                    if host not in hosts:
                        hosts[host] = asyncio.create_task(_check_host(resolver, address))
                    await asyncio.shield(hosts[host])
                    says = (await robots.rules(address)).verdict(address) if config.respect_optout else None
            except Dropped as dropped:
                if dropped.status not in _ITS_OWN:
                    journal.add(row_of(row, {}, dropped))
            else:
                consents[row["key"]] = says

        await asyncio.gather(*map(sort_out, rows.values()))
    await resolver.close()


async def _check_host(resolver: PublicResolver, address: URL) -> None:
    try:
        await resolver.resolve(address.raw_host or "", address.port or 80)
    except OSError as error:
        raise Dropped(*resolver_status(error)) from error


# While it runs


def _write_plan(folder: Path, rows: Sequence[Row]) -> None:
    """Writes its list of addresses; shards of another list are thrown away."""
    urls = [str(checked_url(row["url"], allow_private_addresses=True)) for row in rows]
    table = pa.table({"url": urls, _KEY: [row["key"] for row in rows]})
    plan = folder / "urls.parquet"
    if plan.exists() and not pq.read_table(plan, partitioning=None).equals(table):
        shutil.rmtree(folder)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, plan)


def _unfinished(folder: Path, rows: int) -> bool:
    return len(list((folder / "shards").glob("*_stats.json"))) < -(-rows // _SHARD_ROWS)


def _run(folder: Path, config: "ScrapeConfig", rows: int, total: int, progress: Progress) -> None:
    """Runs it to its end, in processes of its own."""
    (folder / "arguments.json").write_text(json.dumps(_arguments(folder, config)))
    command = [sys.executable, "-c", _RUN, str(folder / "arguments.json")]
    python = {"PYSPARK_PYTHON": sys.executable, **os.environ}  # else Spark's processes run what is called python3
    quiet = {**python, "NO_ALBUMENTATIONS_UPDATE": "1"}
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=quiet, start_new_session=True)
        try:
            with stoppable(process.terminate):
                while process.poll() is None:
                    finished = len(list((folder / "shards").glob("*_stats.json")))
                    shards = -(-rows // _SHARD_ROWS)
                    progress(min(finished * _SHARD_ROWS, rows), total, f"img2dataset: {finished} of {shards} shards")
                    time.sleep(0.5)
        finally:
            _end(process)
    if process.returncode:
        lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
        raise ChildProcessError(
            f"img2dataset ended with {process.returncode}: {lines[-1] if lines else 'it said nothing'}"
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """After Ctrl-C, or an error here: its processes end with it."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def _arguments(folder: Path, config: "ScrapeConfig") -> dict[str, Any]:
    """What it is called with."""
    processes = config.processes or os.cpu_count() or 1
    return {
        "url_list": str(folder / "urls.parquet"),
        "input_format": "parquet",
        "output_folder": str(folder / "shards"),
        "output_format": "webdataset",
        "disable_all_reencoding": True,
        "extract_exif": False,
        "save_additional_columns": [_KEY],
        "number_sample_per_shard": _SHARD_ROWS,
        "processes_count": processes,
        "thread_count": max(1, config.concurrency // processes),
        "timeout": round(config.timeout_s) or 1,
        "retries": config.retries,
        "distributor": config.distributor,
        "user_agent_token": ROBOT,
        "disallowed_header_directives": sorted(REFUSALS) if config.respect_optout else [],
    }


# After: what it brought


def _samples(folder: Path) -> Iterator[Sample]:
    """The rows of all shards that it finished; those of the others, or of a broken one, are as if not asked."""
    for finished in sorted((folder / "shards").glob("*_stats.json")):
        shard = finished.with_name(finished.name.replace("_stats.json", ".tar"))
        yield from (sample for sample in read_shard(shard, broken=lambda _: None) if _KEY in sample.metadata)


def _row(
    candidates: Mapping[str, Row],
    consents: Mapping[str, str | None],
    image_folder: Path,
    config: "ScrapeConfig",
    sample: Sample,
) -> Row:
    """A sample's row of the records, and its image stored."""
    facts: Mapping[str, Any] = sample.metadata
    candidate = candidates[facts[_KEY]]
    consent = consents[candidate["key"]]
    if sample.image_extension is None:
        said = " ".join(str(facts.get("error_message") or "it gave no picture").split())[:200]
        return row_of(candidate, {"consent": consent}, Dropped(status_from_message(said), f"img2dataset: {said}"))
    try:
        body = sample.read(sample.image_extension)
    except ImageError as error:
        return row_of(candidate, {"consent": consent}, Dropped(Status.SHORT_BODY, error.detail))
    if not body:
        return row_of(candidate, {"consent": consent}, Dropped(Status.EMPTY))
    if len(body) > config.max_bytes:
        return row_of(candidate, {"consent": consent}, Dropped(Status.TOO_LARGE, f"more than {config.max_bytes} bytes"))
    return store_picture(image_folder, candidate, body, consent, config, lambda _: False)
