"""A web server on loopback, to which the tests of scrape/ add pages and faults."""

import asyncio
import io
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from dreamloom.base.stage import StageConfig, Summary
from dreamloom.scrape.collection import Collection, Table, key_of
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.scrape import scrape

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _AnyConfig(StageConfig):
    pass


class Web:
    """The served pages, and the number of requests for each path."""

    config = ScrapeConfig(
        allow_private_addresses=True, min_side=16, timeout_s=20, retries=0, min_success_rate=0, decode_threads=2
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pages: dict[str, Handler] = {}
        self.hits: Counter[str] = Counter()
        self.robots: Counter[str] = Counter()  # host → number of requests for its robots.txt
        self.headers: dict[str, str] = {}  # headers of the last request
        self.port = 0
        self.concurrent = self.max_concurrent = 0  # requests for crowded pages under way, and the maximum so far

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, path: str, body: bytes = b"", status: int = 200, headers: object = ()) -> str:
        """Serves a page. Returns its URL."""

        async def answer(_: web.Request) -> web.StreamResponse:
            response = web.Response(body=body, status=status)
            for name, value in headers.items() if isinstance(headers, dict) else headers:  # type: ignore[attr-defined]
                response.headers.add(name, value)
            return response

        return self.handle(path, answer)

    def handle(self, path: str, handler: Handler) -> str:
        """Serves a page by a function. Returns its URL."""
        self.pages[path] = handler
        return self.url + path

    def crowd(self, path: str) -> str:
        """Serves a slow 404 that counts in `max_concurrent`. Returns its URL."""

        async def answer(_: web.Request) -> web.StreamResponse:
            self.concurrent += 1
            self.max_concurrent = max(self.max_concurrent, self.concurrent)
            await asyncio.sleep(0.02)
            self.concurrent -= 1
            return web.Response(status=404)

        return self.handle(path, answer)

    @staticmethod
    def image(seed: int, width: int = 64, height: int = 48, name: str = "JPEG") -> bytes:
        """Makes an image that differs for every seed."""
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(out, name)
        return out.getvalue()

    @staticmethod
    def candidates(collection: Collection, urls: list[str | None], part: str = "00000") -> list[str]:
        """Writes a part of candidates with these URLs. Returns their keys."""
        keys = [key_of("url", part, str(number), url or "") for number, url in enumerate(urls)]
        rows = [{"key": k, "url": u, "text": f"image {n}"} for n, (k, u) in enumerate(zip(keys, urls, strict=True))]
        summary = Summary(rows=len(rows), kept=len(rows))
        collection.write(Table.CANDIDATES, part, rows, recipe=f"r{urls}", config=_AnyConfig(), summary=summary)
        return keys

    def scraped(self, collection: Collection, urls: list[str | None], **config: Any) -> list[dict[str, Any]]:
        """Scrapes these URLs by `self.config` with some fields changed. Returns their records."""
        self.candidates(collection, urls)
        scrape(collection, self.config.model_copy(update=config))
        rows: list[dict[str, Any]] = collection.read(Table.RECORDS).to_pylist()
        assert [row["url"] for row in rows] == urls
        return rows

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/robots.txt":
            self.robots[request.host] += 1
        else:
            self.hits[request.path] += 1
        self.headers = dict(request.headers)
        if request.path not in self.pages:
            raise web.HTTPNotFound
        return await self.pages[request.path](request)


@pytest.fixture
def site() -> Iterator[Web]:
    """A server without pages."""
    loop = asyncio.new_event_loop()
    served = Web(loop)

    async def start() -> web.AppRunner:
        application = web.Application(client_max_size=0)
        application.router.add_get("/{path:.*}", served.answer)
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        served.port = int(runner.addresses[0][1])
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield served
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """An empty collection."""
    return Collection(tmp_path / "collection")
