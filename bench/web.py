"""The web server of bench.scrape and bench.kills: images of a folder, with and without faults, and empty bodies.

python -m bench.web [--folder FOLDER]        serves on loopback until it is ended; prints its URL
"""

import argparse
import asyncio
import io
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from aiohttp import web
from PIL import Image

SIZES = ((1600, 1200), (2400, 1800), (3000, 2000), (2448, 3264))
"""Width and height in pixels, typical of telephones and small cameras."""


def make_images(folder: Path, count: int) -> None:
    """Makes camera-like JPEGs, each different: smooth colors, edges, and sensor noise; 2 to 3 bits per pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(count) if not (folder / f"{number}.jpg").exists()]
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(partial(_make, folder), missing, chunksize=16):
            pass


@cache
def _noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 5, (4096, 4096)).astype(np.int8)


def _make(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    width, height = SIZES[number % len(SIZES)]
    coarse = Image.fromarray(rng.integers(0, 256, (height // 150, width // 150, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    x, y = rng.integers(0, width // 2), rng.integers(0, height // 2)
    image[y : y + height // 3, x : x + width // 3] = rng.integers(0, 256, 3)
    top, left = rng.integers(0, 4096 - height), rng.integers(0, 4096 - width)
    image += _noise()[top : top + height, left : left + width, None]
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)


@cache
def _small(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((320, 240)).save(file, "JPEG")
    return file.getvalue()


async def _with_latency(request: web.Request) -> web.Response:
    """Responds after 50 to 150 ms."""
    name = request.match_info["number"]
    await asyncio.sleep(random.Random(name).uniform(0.05, 0.15))
    return web.Response(body=(request.app[_FOLDER] / f"{name}.jpg").read_bytes())


_FOLDER = web.AppKey("folder", Path)


async def _with_faults(request: web.Request) -> web.Response:
    """Responds with latency; 2 % are 404, 1 % hang, 1 % are truncated."""
    number = int(request.match_info["number"])
    if number % 50 == 7:
        raise web.HTTPNotFound
    if number % 100 == 11:
        await asyncio.sleep(3600)
    response = await _with_latency(request)
    if number % 100 == 13:
        assert isinstance(response.body, bytes)
        response.body = response.body[:-1000]
    return response


_hits_by_path: Counter[str] = Counter()


async def _counted(request: web.Request) -> web.Response:
    """Responds with a small image; every 9th is 404, every 10th a copy of another."""
    number = int(request.match_info["number"])
    _hits_by_path[request.path] += 1
    if number % 9 == 8:
        raise web.HTTPNotFound
    return web.Response(body=_small(number // 2 if number % 10 == 9 else number))


async def _report_hits(_: web.Request) -> web.Response:
    """Responds with path → number of requests, for paths below /counted."""
    return web.json_response(_hits_by_path)


async def _empty(_: web.Request) -> web.Response:
    return web.Response()


async def _serve(folder: Path | None) -> None:
    application = web.Application()
    if folder is not None:
        application[_FOLDER] = folder
        application.router.add_static("/file", folder)
        application.router.add_get("/latency/{number}.jpg", _with_latency)
        application.router.add_get("/faults/{number}.jpg", _with_faults)
    application.router.add_get("/counted/{number}.jpg", _counted)
    application.router.add_get("/hits", _report_hits)
    application.router.add_get("/empty/{number}", _empty)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serves until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    asyncio.run(_serve(parser.parse_args().folder))


if __name__ == "__main__":
    main()
