"""The web of bench/scrape.py and bench/kills.py: images of a folder, small ones with faults, and empty bodies.

python -m bench.web [--folder FOLDER]        serves on loopback until it is ended; prints its address
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
"""Width and height, as telephones and small cameras of the web's years have them."""


def make_images(folder: Path, count: int) -> None:
    """Camera-like JPEGs, each of its own: smooth colours, edges, and the grain of a sensor; 2 to 3 bits a pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(count) if not (folder / f"{number}.jpg").exists()]
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(partial(_make, folder), missing, chunksize=16):
            pass


@cache
def _grain() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 5, (4096, 4096)).astype(np.int8)


def _make(folder: Path, number: int) -> None:
    dice = np.random.default_rng(number)
    width, height = SIZES[number % len(SIZES)]
    coarse = Image.fromarray(dice.integers(0, 256, (height // 150, width // 150, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    x, y = dice.integers(0, width // 2), dice.integers(0, height // 2)
    image[y : y + height // 3, x : x + width // 3] = dice.integers(0, 256, 3)
    top, left = dice.integers(0, 4096 - height), dice.integers(0, 4096 - width)
    image += _grain()[top : top + height, left : left + width, None]
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)


@cache
def _small(number: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((320, 240)).save(out, "JPEG")
    return out.getvalue()


async def _with_latency(request: web.Request) -> web.Response:
    """50 to 150 ms."""
    name = request.match_info["number"]
    await asyncio.sleep(random.Random(name).uniform(0.05, 0.15))
    return web.Response(body=(request.app[_FOLDER] / f"{name}.jpg").read_bytes())


_FOLDER = web.AppKey("folder", Path)


async def _with_faults(request: web.Request) -> web.Response:
    """2 % 404, 1 % that hang, 1 % corrupt."""
    number = int(request.match_info["number"])
    if number % 50 == 7:
        raise web.HTTPNotFound
    if number % 100 == 11:
        await asyncio.sleep(3600)
    answer = await _with_latency(request)
    if number % 100 == 13:
        assert isinstance(answer.body, bytes)
        answer.body = answer.body[:-1000]
    return answer


_asked: Counter[str] = Counter()


async def _counted(request: web.Request) -> web.Response:
    """Every 9th is gone, every 10th a copy of another."""
    number = int(request.match_info["number"])
    _asked[request.path] += 1
    if number % 9 == 8:
        raise web.HTTPNotFound
    return web.Response(body=_small(number // 2 if number % 10 == 9 else number))


async def _hits(_: web.Request) -> web.Response:
    """Path → how often it was asked for, of those below /counted."""
    return web.json_response(_asked)


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
    application.router.add_get("/hits", _hits)
    application.router.add_get("/empty/{number}", _empty)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    asyncio.run(_serve(parser.parse_args().folder))


if __name__ == "__main__":
    main()
