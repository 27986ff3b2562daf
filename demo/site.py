"""The demo's web site on loopback: draws images on request, with the faults of the real web.

    python -m dreamloom.demo.site          serves until Ctrl-C, and prints some addresses to try

dreamloom.demo.gallery decides what an address gives; this module sends each fault. Only `BUSY_ONCE` depends on earlier
requests.
"""

import asyncio
import gzip
import itertools
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from aiohttp import web

from dreamloom.base.errors import UserError
from dreamloom.demo.encode import draw, encode
from dreamloom.demo.gallery import Exhibit, Fault, Form, exhibit
from dreamloom.demo.world import Scene, Thing, render

OPT_OUTS = (
    ("X-Robots-Tag", "noai"),
    ("X-Robots-Tag", "NOAI, NoImageAI"),
    ("X-Robots-Tag", "noimageindex"),
    ("X-Robots-Tag", "none"),
    ("X-Robots-Tag", "unavailable_after: Sat, 01 Jan 2022 00:00:00 GMT, noai"),
    ("TDM-Reservation", "1"),
)
"""The headers of OPTED_OUT, used in turn."""

HARMLESS = (
    ("X-Robots-Tag", "max-image-preview: large"),
    ("X-Robots-Tag", "otherbot: noai"),
    ("TDM-Reservation", "0"),
)
"""The headers of HARMLESS_HEADER, used in turn."""

_ROBOTS = "User-agent: *\nDisallow: /members/\n"
_SOFT_404 = "<!DOCTYPE html><html><title>Page not found</title><body>We are sorry; this page has moved.</body></html>"
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="300"><circle cx="150" cy="150" r="99"/></svg>'


@contextmanager
def serve(port: int = 0) -> Iterator[str]:
    """Serves on loopback, in a thread of its own, until the block ends.

    Args:
        port: the port; 0: a free one.

    Yields:
        The address without a final slash, such as "http://127.0.0.1:28417".

    Raises:
        UserError: another program uses the port.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="demo-site", daemon=True)
    thread.start()
    try:
        runner, bound = asyncio.run_coroutine_threadsafe(_start(port), loop).result()
        try:
            yield f"http://127.0.0.1:{bound}"
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(port: int) -> tuple[web.AppRunner, int]:
    application = web.Application()
    application[_REQUESTED] = set()
    application.router.add_get("/robots.txt", _robots)
    application.router.add_get("/{folder:pictures|members|moved}/{name}", _image)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    except OSError as error:
        await runner.cleanup()
        raise UserError(
            f"The demo's site can't use port {port} of 127.0.0.1 ({error.strerror}); stop the program that uses it."
        ) from error
    return runner, int(runner.addresses[0][1])


_REQUESTED: web.AppKey[set[int]] = web.AppKey("requested", set)
"""The BUSY_ONCE exhibits that were requested before."""


async def _robots(request: web.Request) -> web.Response:
    return web.Response(text=_ROBOTS)


async def _image(request: web.Request) -> web.StreamResponse:
    number = _number(request.match_info["name"])
    if number is None:
        raise web.HTTPNotFound
    shown = exhibit(number)
    if request.match_info["folder"] == "moved" or shown.fault is None:
        return await _plain(shown)
    return await _faulty(request, shown, shown.fault)


def _number(name: str) -> int | None:
    """The exhibit's number in a name such as "000123.jpg" or "ein-herz-000123.jpg"; None where there is none."""
    stem, _, extension = name.rpartition(".")
    digits = stem.rpartition("-")[2]
    if len(digits) != 6 or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) if exhibit(int(digits)).form.extension == extension else None


async def _plain(shown: Exhibit, **headers: str) -> web.Response:
    body = await asyncio.to_thread(draw, shown)
    return web.Response(body=body, content_type=_content_type(shown), headers=headers)


def _content_type(shown: Exhibit) -> str:
    return "image/jpeg" if shown.form.extension == "jpg" else f"image/{shown.form.extension}"


async def _faulty(request: web.Request, shown: Exhibit, fault: Fault) -> web.StreamResponse:
    match fault:
        case Fault.GONE | Fault.GONE_FOR_GOOD | Fault.FORBIDDEN | Fault.BROKEN:
            return web.Response(status=_STATUS[fault], text=fault)
        case Fault.BUSY:
            return _busy()
        case Fault.BUSY_ONCE if shown.number not in request.app[_REQUESTED]:
            request.app[_REQUESTED].add(shown.number)
            return _busy()
        case Fault.PLACEHOLDER | Fault.SOFT_404 | Fault.SVG | Fault.PIXEL | Fault.EMPTY:
            body, content_type = _replacement(fault)
            return web.Response(body=body, content_type=content_type)
        case Fault.PIXEL_BOMB:
            return web.Response(body=_pixel_bomb(), content_type="image/png")
        case Fault.LOOP | Fault.TO_PRIVATE | Fault.TO_FILE | Fault.MOVED:
            return _redirect(request, shown, fault)
        case Fault.TRUNCATED | Fault.WRONG_TYPE | Fault.GZIPPED | Fault.GZIP_BOMB:
            return await _wrong_response(shown, fault)
        case Fault.SHORT_BODY | Fault.RESET | Fault.DRIP | Fault.ENDLESS:
            return await _stream(request, shown, fault)
        case Fault.OPTED_OUT:
            return await _plain(shown, **dict([OPT_OUTS[shown.number % len(OPT_OUTS)]]))
        case Fault.HARMLESS_HEADER:
            return await _plain(shown, **dict([HARMLESS[shown.number % len(HARMLESS)]]))
        case Fault.HANG:
            await asyncio.sleep(3600)
        case Fault.SLOW:
            await asyncio.sleep(0.5)
    return await _plain(shown)  # SLOW in the end; BUSY_ONCE when requested again; ROBOTS, if robots.txt was not read


_STATUS = {Fault.GONE: 404, Fault.GONE_FOR_GOOD: 410, Fault.FORBIDDEN: 403, Fault.BROKEN: 500}


def _busy() -> web.Response:
    return web.Response(status=429, headers={"Retry-After": "0"}, text="too many requests")


@cache
def _replacement(fault: Fault) -> tuple[bytes, str]:
    """The body that is sent with status 200 instead of the image, and its content type."""
    if fault is Fault.SOFT_404:
        return _SOFT_404.encode(), "text/html"
    if fault is Fault.SVG:
        return _SVG.encode(), "image/svg+xml"
    if fault is Fault.PIXEL:
        return encode(render(Scene("grey", "flat", (Thing("square", "black"),)), 1), Form.GIF), "image/gif"
    if fault is Fault.PLACEHOLDER:
        nothing_here = Scene("grey", "flat", (Thing("cross", "black"),), "big")
        return encode(render(nothing_here, 300, 200), Form.PNG), "image/png"
    return b"", "image/jpeg"


@cache
def _pixel_bomb() -> bytes:
    """A black and white PNG of 20,000 × 20,000 pixels, of about 50 kB."""
    side = 20_000

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@cache
def _gzip_bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)  # 31: gzip
    return b"".join([packer.compress(bytes(2**20)) for _ in range(256)]) + packer.flush()


def _redirect(request: web.Request, shown: Exhibit, fault: Fault) -> web.Response:
    targets = {
        Fault.LOOP: shown.path,
        Fault.TO_PRIVATE: "http://127.0.0.1:1/latest/meta-data/",  # a port on which nothing listens
        Fault.TO_FILE: "file:///etc/passwd",
        Fault.MOVED: f"/moved/{request.match_info['name']}",
    }
    status = (301, 302, 307, 308)[shown.number % 4]
    return web.Response(status=status, headers={"Location": targets[fault]})


async def _wrong_response(shown: Exhibit, fault: Fault) -> web.Response:
    """A complete response with a wrong body or wrong headers."""
    if fault is Fault.GZIP_BOMB:
        bomb = await asyncio.to_thread(_gzip_bomb)
        return web.Response(body=bomb, content_type="image/png", headers={"Content-Encoding": "gzip"})
    body = await asyncio.to_thread(draw, shown)
    if fault is Fault.WRONG_TYPE:
        return web.Response(body=body, content_type="text/plain")
    if fault is Fault.GZIPPED:
        compressed = gzip.compress(body, mtime=0)
        return web.Response(body=compressed, content_type=_content_type(shown), headers={"Content-Encoding": "gzip"})
    return web.Response(body=body[: len(body) * 2 // 3], content_type=_content_type(shown))


async def _stream(request: web.Request, shown: Exhibit, fault: Fault) -> web.StreamResponse:
    """A response whose body breaks off, trickles, or never ends."""
    body = await asyncio.to_thread(draw, shown)
    response = web.StreamResponse(headers={"Content-Type": _content_type(shown)})
    if fault is not Fault.ENDLESS:
        response.content_length = len(body)
    with suppress(ConnectionResetError):  # the client has gone
        await response.prepare(request)
        await _send(request, response, body, fault)
    return response


async def _send(request: web.Request, response: web.StreamResponse, body: bytes, fault: Fault) -> None:
    if fault is Fault.DRIP:
        for start in range(0, len(body), 8):
            await response.write(body[start : start + 8])
            await asyncio.sleep(0.1)
        return
    await response.write(body[: len(body) // 2])
    if fault is Fault.ENDLESS:
        for _ in itertools.count():
            await response.write(bytes(2**18))
    if request.transport is not None:
        request.transport.close() if fault is Fault.SHORT_BODY else request.transport.abort()


def main() -> None:
    """Serves until Ctrl-C."""
    with serve() as url:
        print(f"{url}/robots.txt")
        for number in range(20):
            shown = exhibit(number)
            print(f"{url}{shown.path}  {shown.width} × {shown.height}  {shown.form}  {shown.fault or ''}".rstrip())
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
