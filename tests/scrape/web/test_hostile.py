"""The bad web of data sets, all of it at once: each fault has its status, and each image looks as it should.

The cases are those of bench/hostile.py, which also shows what img2dataset makes of them (docs/scraping.md).
"""

import asyncio
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from bench.hostile import Site
from bench.hostile_cases import list_cases, scrape_cases
from bench.hostile_images import png
from dreamloom.base.errors import UserError
from dreamloom.scrape.collection import Collection, Status, Table
from dreamloom.scrape.collection.journal import Journal
from dreamloom.scrape.web.address import is_public
from dreamloom.scrape.web.outcome import RowDropped, make_row
from dreamloom.scrape.web.scrape import recipes, scrape

pytestmark = pytest.mark.slow

Row = dict[str, Any]

CASES = list_cases()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[list[Row]], set[str]]]:
    """The collection, the records of each case, and the hosts that were asked."""
    collection = Collection(tmp_path_factory.mktemp("hostile"))
    with Site(CASES) as site, pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy"):  # item 24: a proxy knows no private addresses
            patch.setenv(name, "http://127.0.0.1:9")
        yield collection.root, scrape_cases(site, collection), {host for host, _ in site.num_requests}


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{c.item} {c.what}"[:60] for c in CASES])
def test_a_fault_has_its_status(number: int, outcomes: tuple[Path, list[list[Row]], set[str]]) -> None:
    case, (root, records, requested_hosts) = CASES[number], outcomes
    for row in records[number]:
        assert row["status"] in case.ours.split("|"), (row["status"], row["detail"])
        assert row["text"] == case.text
        assert "0x" not in (row["detail"] or "")
        if row["status"] == "ok" and case.shows is not None:
            with Image.open(root / row["image"]) as image:
                shown = np.asarray(image.convert("RGB"), float)
            assert shown.shape == case.shows.shape
            assert np.abs(shown - case.shows).mean() < case.close
    if case.never_asked:
        assert Site.address(number) not in requested_hosts


def test_most_of_the_list_is_there() -> None:
    """Of 88 kinds of bad input, 69 are cases; other tests stage the other 19 (docs/scraping.md)."""
    assert len({case.item for case in CASES}) == 69


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3"),
        *("224.0.0.1", "[::1]", "[fc00::1]", "[fe80::1]", "[ff02::1]", "[::]", "localhost"),
        *("[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "[64:ff9b::7f00:1]"),
    ],
)
def test_private_addresses_are_refused_in_every_spelling_and_on_every_hop(
    site: Any, collection: Collection, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items 20 to 22. In this test's internet, 127.0.0.9 is a public address."""
    monkeypatch.setattr("dreamloom.scrape.web.address.is_public", lambda ip: str(ip) == "127.0.0.9" or is_public(ip))
    target = f"http://{host}:{site.port}/secret"
    site.put("/secret", site.image(1))
    (row,) = site.scraped(collection, [target], allow_private_addresses=False)
    assert row["status"] == "private_address"
    assert site.hits.total() == 0


# The process


def script(collection: Collection, site: Any, before: str = "") -> str:
    return f"""
import resource
from pathlib import Path
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.scrape import scrape
{before}
scrape(Collection(Path({str(collection.root)!r})), ScrapeConfig.model_validate_json({site.config.model_dump_json()!r}))
"""


def test_sigterm_ends_it_and_what_was_done_stays(site: Any, collection: Collection) -> None:
    """Item 75."""
    running: list[subprocess.Popen[bytes]] = []
    journal = collection.root / "records" / ".journal-00000.jsonl"
    urls = [site.put(f"/{n}", site.image(10 + n)) for n in range(5)]

    async def deadly(_: web.Request) -> web.StreamResponse:
        if site.hits["/deadly"] == 1:
            while len(journal.read_bytes().splitlines()) < 1 + len(urls):
                await asyncio.sleep(0.01)
            os.kill(running[0].pid, signal.SIGTERM)
        return web.Response(body=site.image(2))

    site.candidates(collection, [*urls, site.handle("/deadly", deadly)])
    running.append(subprocess.Popen([sys.executable, "-c", script(collection, site)]))
    assert running[0].wait(60) == -signal.SIGTERM
    assert scrape(collection, site.config).kept == 6
    assert [site.hits[f"/{n}"] for n in (*range(5), "deadly")] == [1] * 5 + [2]


def test_a_disk_that_takes_no_more_ends_it_and_room_lets_it_go_on(site: Any, collection: Collection) -> None:
    """Item 76, by a limit to the size of files."""
    urls = [site.put("/small", site.image(1)), site.put("/large", site.image(2, 900, 900, "PNG"))]
    site.candidates(collection, urls)
    limit = len(site.image(2, 900, 900, "PNG")) // 2
    code = script(collection, site, f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {resource.RLIM_INFINITY}))")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "File too large" in ended.stderr
    assert not collection.parts(Table.RECORDS)
    assert scrape(collection, site.config).kept == 2
    assert not list(collection.root.rglob(".tmp-*"))


def test_an_image_for_which_memory_does_not_suffice_is_a_row_among_others(site: Any, collection: Collection) -> None:
    """Item 77: when it is asked for, the program has some 200 MB left, and its pixels would take 324."""
    running: list[subprocess.Popen[bytes]] = []
    flat = png(struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0), zlib.compress(bytes(9000 * 27_001), 1))

    async def large(_: web.Request) -> web.StreamResponse:
        status = Path(f"/proc/{running[0].pid}/status").read_text()
        now = 1024 * int(status.partition("VmSize:")[2].split()[0])
        resource.prlimit(running[0].pid, resource.RLIMIT_AS, (now + 2 * 10**8, resource.RLIM_INFINITY))
        return web.Response(body=flat)

    urls = [site.put(f"/{n}", site.image(n)) for n in range(6)]
    site.candidates(collection, [*urls[:3], site.handle("/large", large), *urls[3:]])
    site.config = site.config.model_copy(update={"concurrency": 1, "decode_threads": 1})  # in their order
    running.append(subprocess.Popen([sys.executable, "-c", script(collection, site)]))
    assert running[0].wait(60) == 0
    rows = collection.read(Table.RECORDS).to_pylist()
    assert [row["status"] for row in rows] == [*["ok"] * 3, "too_many_pixels", *["ok"] * 3]
    assert rows[3]["detail"] == "more than memory holds just now"


def test_two_runs_on_one_collection(site: Any, collection: Collection) -> None:
    """Item 78."""
    site.candidates(collection, [site.put("/a", site.image(1))])
    code = f"""
from pathlib import Path
from dreamloom.base.sharing.workers import work_in
with work_in(Path({str(collection.root)!r})):
    print(flush=True)
    input()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(UserError, match=f"in use by another run .process {other.pid}"):
        scrape(collection, site.config)
    other.communicate(b"\n")
    assert scrape(collection, site.config).kept == 1


def test_what_was_journaled_under_another_config_is_not_taken_over(site: Any, collection: Collection) -> None:
    """Item 79."""
    urls = [site.put("/a", site.image(1, 60, 60)), site.put("/b", site.image(2, 90, 90))]
    site.candidates(collection, urls)
    (made_by,) = recipes(collection, site.config).values()
    with Journal(collection.root / "records" / ".journal-00000.jsonl", {"recipe": made_by}) as journal:
        journal.add(make_row(collection.read(Table.CANDIDATES).to_pylist()[1], {}, RowDropped(Status.TIMEOUT)))
    other = Collection(collection.root.with_name("other"))
    shutil.copytree(collection.root, other.root)
    assert scrape(collection, site.config).dropped == {"timeout": 1}
    assert scrape(other, site.config.model_copy(update={"min_side": 61})).dropped == {"too_small": 1}
