"""The same candidates through img2dataset come to the same tables; what it must not ask, it does not."""

import importlib.util
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dreamloom.base.errors import UserError
from dreamloom.base.stop import stop_all
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.web import img2dataset
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.scrape import scrape

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("img2dataset") is None, reason="img2dataset is an extra"),
]


OF_CLUSTERS = [name for name in ("pyspark", "ray") if importlib.util.find_spec(name)]
"""Installed by whoever has a cluster."""


@pytest.mark.parametrize("distributor", ["multiprocessing", *OF_CLUSTERS])
def test_its_tables_are_those_of_the_scraper(site: Any, tmp_path: Path, distributor: str) -> None:
    """Also of what it fails at by itself: an address with a space, a body that is packed, a host that asks to wait."""
    site.put("/robots.txt", b"User-agent: *\nDisallow: /members/\n")

    async def busy(_: web.Request) -> web.StreamResponse:
        first = site.hits["/busy"] % 4 != 0
        return web.Response(status=429, headers={"Retry-After": "0"}) if first else web.Response(body=site.image(8))

    urls = [site.put(f"/{n}", site.image(n)) for n in range(4)]
    urls += [site.put("/copy", site.image(1)), site.put("/gone", status=404), site.put("/page", b"<html>")]
    urls += [site.put("/a b", site.image(5)), site.handle("/busy", busy), site.put("/big", site.image(6, 900, 700))]
    urls += [site.put("/no", site.image(7), headers={"X-Robots-Tag": "noai"}), site.put("/members/1", b"")]
    urls += ["file:///etc/hostname", None]
    tables = []
    for engine in ("native", "img2dataset"):
        collection = Collection(tmp_path / engine)
        config = {"engine": engine, "distributor": distributor, "processes": 1, "retries": 3, "shrink_to": 100}
        rows = site.scraped(collection, urls, **config)
        tables.append([{**row, "consent": None, "detail": None} for row in rows])
        assert not (collection.root / "bulk").exists() or not list((collection.root / "bulk").iterdir())
    assert tables[0] == tables[1]
    assert [row["status"] for row in tables[0]] == [
        *(["ok"] * 4),
        *("duplicate", "http_404", "not_an_image", "ok", "ok", "ok", "opted_out", "opted_out", "bad_scheme", "bad_url"),
    ]
    assert site.hits["/members/1"] == 0


def test_private_addresses_are_not_handed_over(site: Any, collection: Collection) -> None:
    urls = [site.put("/a", site.image(1)), site.url.replace("127.0.0.1", "localhost") + "/a"]
    rows = site.scraped(collection, urls, engine="img2dataset", allow_private_addresses=False)
    assert [row["status"] for row in rows] == ["private_address"] * 2
    assert site.hits.total() == 0


def test_what_it_does_not_finish_is_fetched_all_the_same(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(img2dataset, "_RUN", "pass")
    urls = [site.put("/a", site.image(1)), site.put("/b", status=404)]
    assert [row["status"] for row in site.scraped(collection, urls, engine="img2dataset")] == ["ok", "http_404"]


def test_an_exit_code_is_heeded_and_the_next_run_goes_on(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.candidates(collection, [site.put("/a", site.image(1))])
    config = site.config.model_copy(update={"engine": "img2dataset"})
    with monkeypatch.context() as patch, pytest.raises(ExceptionGroup) as caught:
        patch.setattr(img2dataset, "_RUN", "print('no room'); raise SystemExit(3)")
        scrape(collection, config)
    assert "img2dataset ended with exit code 3: no room" in str(caught.value.exceptions[0])
    assert not collection.parts(Table.RECORDS)
    monkeypatch.setattr(img2dataset, "_RUN", "pass")
    assert scrape(collection, config).kept == 1


def runs(pid: str) -> bool:
    """Whether a process is there, and has not ended without anybody asking for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_ends_where_a_run_is_stopped_in_another_thread(
    site: Any, collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where sources come in side by side; and its own processes with it."""
    began = tmp_path / "began"
    sleeper = "[sys.executable, '-c', 'import time; time.sleep(600)']"
    run = f"import os, subprocess, sys; child = subprocess.Popen({sleeper}); "
    run += f"open({str(began)!r} + '~', 'w').write(f'{{os.getpid()}} {{child.pid}}'); "
    run += f"os.rename({str(began)!r} + '~', {str(began)!r}); child.wait()"
    monkeypatch.setattr(img2dataset, "_RUN", run)
    site.candidates(collection, [site.put("/a", site.image(1))])
    failed: list[BaseException] = []

    def work() -> None:
        try:
            scrape(collection, site.config.model_copy(update={"engine": "img2dataset"}))
        except ExceptionGroup as error:
            failed.extend(error.exceptions)

    thread = threading.Thread(target=work)
    thread.start()
    while not began.exists():
        thread.join(0.05)
        assert thread.is_alive()
    stop_all(30)
    thread.join(30)
    assert "img2dataset ended with exit code -15" in str(failed[0])
    until = time.monotonic() + 30
    while any(runs(pid) for pid in began.read_text().split()):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_is_not_installed_is_said(site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ScrapeConfig(engine="img2dataset", distributor="ray")
    if importlib.util.find_spec("ray") is None:
        with pytest.raises(UserError, match="pip install ray"):
            img2dataset.check_installed(config)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="needs Java"):
        patch.setattr(importlib.util, "find_spec", lambda name: name)
        patch.setenv("PATH", "")
        patch.delenv("JAVA_HOME", raising=False)
        img2dataset.check_installed(ScrapeConfig(engine="img2dataset", distributor="pyspark"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    site.candidates(collection, [site.put("/a", site.image(1))])
    with pytest.raises(UserError, match=r"pip install -e '\.\[bulk\]'"):
        scrape(collection, config)
    assert not collection.parts(Table.RECORDS)
