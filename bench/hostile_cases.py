"""The cases of `bench.hostile`: faults of the network, the URL, the owner's refusal, the content and the row.

The tests and the table of docs/scraping.md run the same cases.
"""

import json
from collections.abc import Iterator

import aiohttp.connector
import numpy as np

from bench import hostile_images as bad
from bench.hostile import Case, Site, endless, moved, once, only, reply, send
from dreamloom.base.stage import Summary
from dreamloom.scrape.collection import Collection, Row, Table, key_of
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.scrape.web.scrape import scrape

CONFIG = ScrapeConfig(
    allow_private_addresses=True,
    timeout_s=5,
    connect_timeout_s=3,  # less is not enough for a hundred hosts at once on a machine that has other work
    min_side=16,
    max_bytes=8 * 2**20,
    min_success_rate=0,
    encode_format="png",
)
"""The config with which the cases are scraped."""


def scrape_cases(site: Site, collection: Collection) -> list[list[Row]]:
    """Scrapes the cases that a site serves. Returns the records of each case."""
    # what SSL_CERT_FILE does if it is set before aiohttp is imported
    aiohttp.connector._SSL_CONTEXT_VERIFIED.load_verify_locations(site.authority)
    urls = site.urls()
    rows = [
        {"key": key_of("case", str(n), str(m)), "url": url, "text": site.cases[n].text}
        for n, urls_of_case in enumerate(urls)
        for m, url in enumerate(urls_of_case)
    ]
    summary = Summary(rows=len(rows), kept=len(rows))
    collection.write(Table.CANDIDATES, "00000", rows, recipe="r", config=CONFIG, summary=summary)
    scrape(collection, CONFIG)
    records = iter(collection.read(Table.RECORDS).to_pylist())
    return [[next(records) for _ in urls_of_case] for urls_of_case in urls]


def good() -> bytes:
    """Returns a response with a valid image."""
    return reply(bad.photo())


def list_cases() -> list[Case]:
    """Returns all cases."""
    return [*_network(), *_addresses(), *_wishes(), *_content(), *_pixels(), *_rows(), *_answers()]


def _network() -> Iterator[Case]:
    body, scene = bad.photo(), bad.scene()
    half = body[: len(body) // 2]
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield Case(
        "1",
        "a connection that is never accepted",
        "timeout",
        urls=("http://{full}/",),
        robots=reply(b"User-agent: *\nDisallow: /"),
    )
    yield Case("2", "no answer", "timeout", send(hang=True))
    yield Case("2", "half of the headers, and no more", "timeout", send(b"HTTP/1.1 200 OK\r\nX-A: b", hang=True))
    drip = [body[n : n + 1] for n in range(len(body))]
    yield Case("3", "a byte every 20 ms", "timeout", send(reply(b"", length=len(body)), *drip, pause_s=0.02))
    yield Case("4", "12 MB, as announced", "too_large", reply(bytes(12 * 2**20)))
    until_closed = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    yield Case("4", "12 MB, unannounced", "too_large", send(until_closed, *[bytes(2**20)] * 12))
    yield Case("5", "less than Content-Length", "short_body", reply(half, length=len(body)))
    yield Case("5", "more than Content-Length", "truncated|connection", reply(body, length=len(half)))
    yield Case("6", "chunks that are none", "connection|short_body", send(chunked + b"zz\r\n" + body))
    yield Case("6", "chunks that end early", "short_body", send(chunked + b"%x\r\n" % len(body) + half))
    packed = "Content-Encoding: gzip"
    yield Case("7", "gzip", "ok", reply(bad.gzipped(body), 200, packed), shows=scene)
    yield Case("7", "gzip that is none", "ok", reply(bad.photo(), 200, packed), shows=scene)
    yield Case("7", "a gzip bomb: 250 kB become 256 MB", "too_large", reply(bad.gzip_bomb(), 200, packed))
    yield Case("7", "brotli that is none", "ok", reply(bad.photo(), 200, "Content-Encoding: br"), shows=scene)
    yield Case("8", "a header of 1 MB", "connection", send(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2**20 + b"\r\n\r\n"))
    yield Case("8", "headers without end", "connection", endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 999))
    trailers = chunked + b"%x\r\n" % len(body) + body + b"\r\n0\r\n"
    yield Case("8", "trailers without end", "connection|short_body", endless(trailers, b"X-A: b\r\n" * 999))
    yield Case("9", "reset in the middle", "short_body", send(reply(half, length=len(body)), pause_s=0.1, reset=True))
    yield Case("10", "a certificate that is expired, another's, and self-made", "tls", urls=("https://{expired}/",))
    yield Case("10", "https of a server that speaks http", "tls", good(), ("https://{at}/",))
    yield Case("11", "a redirect to itself", "too_many_redirects", moved("http://{at}/image.jpg"))
    for status in (301, 308):
        redirect = once(moved("/image.jpg", status), good())
        yield Case("12", f"redirected with {status}", "ok", redirect, shows=scene)
    yield Case("13", "a redirect to a host whose robots.txt refuses", "opted_out", moved("http://127.0.1.1:{port}/x"))
    leaves = ("https://{secure}/{at}/image.jpg",)
    yield Case("14", "https that leads to http", "ok", good(), leaves, shows=scene)
    unknown = ("http://no-such-name.invalid/",)
    yield Case("15", "a name that does not exist", "dns_unknown|dns_temporary", urls=unknown)
    wait, date = "Retry-After: 1", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"
    yield Case("16", "429 once, with Retry-After in seconds", "ok", once(reply(b"", 429, wait), good()), shows=scene)
    yield Case("16", "503 once, with Retry-After as a date", "ok", once(reply(b"", 503, date), good()), shows=scene)
    yield Case("16", "429 until tomorrow", "http_429", reply(b"", 429, "Retry-After: 86400"))
    for item, status, name in (("17", 403, "403"), ("18", 404, "404"), ("18", 410, "410"), ("18", 451, "4xx")):
        yield Case(item, f"{status}", f"http_{name}", reply(b"<html>", status))


def _addresses() -> Iterator[Case]:
    scene = bad.scene()
    for url in (
        "file:///etc/hostname",
        "ftp://127.0.0.1/a.jpg",
        "data:image/png;base64,iVBORw0KGgo=",
        "gopher://{at}/",
    ):
        yield Case("19", url.partition(":")[0] + ":", "bad_scheme", urls=(url,), never_asked=True)
    yield Case("19", "a path", "bad_url", urls=("/etc/hostname",), never_asked=True)
    yield Case("19", "a redirect to file:", "bad_scheme", moved("file:///etc/hostname"))
    yield Case("25", "a password in the address", "ok", good(), ("http://me:secret@{at}/a",), shows=scene)
    yield Case("25", "a port that can't be", "bad_url", urls=("http://127.0.0.1:99999/",), never_asked=True)
    yield Case("26", "no address", "bad_url", urls=("",), never_asked=True)
    for url in ("http://", "http:///?a.jpg", "http://[::1/", "http://a..b/", "not an address"):
        yield Case("27", url, "bad_url", urls=(url,), never_asked=True)
    accents = only("/caf%C3%A9/%E7%8C%AB.jpg", good())
    yield Case("28", "a path that is not ASCII", "ok", accents, ("http://{at}/café/猫.jpg",), shows=scene)
    unknown = ("http://bücher.invalid/a.jpg",)
    yield Case("29", "a name that is not ASCII", "dns_unknown|dns_temporary", urls=unknown)
    yield Case("30", "spaces", "ok", only("/a%20b.jpg", good()), (" http://{at}/a b.jpg\n",), shows=scene)
    yield Case("31", "&amp; for &", "ok", only("/a?b=1&c=2", good()), ("http://{at}/a?b=1&amp;c=2",), shows=scene)
    yield Case("32", "13,000 characters", "ok", good(), ("http://{at}/" + "a" * 13_000,), shows=scene)
    yield Case("33", "a fragment", "ok", only("/a.jpg", good()), ("http://{at}/a.jpg#top",), shows=scene)


def _wishes() -> Iterator[Case]:
    for value in ("noai", "noimageai", "noindex", "noimageindex", "none", "NOAI", "all, none", "dreamloom: noai"):
        yield Case("34", f"X-Robots-Tag: {value}", "opted_out", reply(bad.photo(), 200, f"X-Robots-Tag: {value}"))
    dated = "X-Robots-Tag: unavailable_after: Sat, 01 Jan 2022 00:00:00 GMT, noai"
    yield Case("34", dated, "opted_out", reply(bad.photo(), 200, dated))
    two = ("X-Robots-Tag: otherbot: nofollow", "X-Robots-Tag: noai")
    yield Case("34", "two X-Robots-Tags, the second for all", "opted_out", reply(bad.photo(), 200, *two))
    yield Case("34", "X-Robots-Tag: otherbot: noai", "ok", reply(bad.photo(), 200, "X-Robots-Tag: otherbot: noai"))
    yield Case("35", "TDM-Reservation: 1", "opted_out", reply(bad.photo(), 200, "TDM-Reservation: 1"))
    no = b"User-agent: *\nDisallow: /\n"
    yield Case("36", "robots.txt disallows", "opted_out", good(), robots=reply(no))
    yield Case("36", "robots.txt with a byte order mark", "opted_out", good(), robots=reply(b"\xef\xbb\xbf" + no))
    yield Case("36", "robots.txt is redirected", "opted_out", only("/r", reply(no)), robots=moved("/r"))
    yield Case("36", "robots.txt gives 500", "http_5xx", good(), robots=reply(b"", 500))
    yield Case("36", "robots.txt gives 403", "ok", good(), robots=reply(no, 403))
    long = endless(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + no, b"# and so on\n" * 999)
    yield Case("36", "robots.txt without end", "opted_out", good(), robots=long)
    yield Case("37", "C2PA: no training", "opted_out", reply(bad.reserved_by_c2pa()))
    yield Case("37", "IPTC: no training", "opted_out", reply(bad.reserved_by_iptc()))


def _content() -> Iterator[Case]:
    page, icon = b"<!DOCTYPE html><html>not found</html>", b"\0\0\1\0\1\0" + bytes(60)
    yield Case("38", "a page, with 200", "not_an_image", reply(page, 200, "Content-Type: image/jpeg"))
    yield Case("39", "JSON", "not_an_image", reply(json.dumps({"error": "gone"}).encode()))
    yield Case("40", "SVG", "not_an_image", reply(b'<svg xmlns="http://www.w3.org/2000/svg"/>'))
    yield Case("41", "ICO", "truncated", reply(icon))
    yield Case("42", "PDF", "not_an_image", reply(b"%PDF-1.7\n" + bytes(200)))
    yield Case("43", "an image as text/plain", "ok", reply(bad.photo(), 200, "Content-Type: text/plain"))
    yield Case("44", "nothing, with 200", "empty", reply())
    pixel = bad.encoded(np.zeros((1, 1, 3), np.uint8), "GIF")
    yield Case("45", "a tracking pixel", "placeholder", reply(pixel))
    missing = bad.encoded(np.full((200, 300, 3), 128, np.uint8))
    five = tuple(f"http://{{at}}/{n}.jpg" for n in range(5))
    yield Case("46", "one image for every address", "placeholder", reply(missing), five)
    for name, share in (("JPEG", 0.5), ("JPEG", 0.99), ("PNG", 0.5), ("PNG", 0.99)):
        grain = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        whole = bad.encoded(grain, name)
        item = "47" if name == "JPEG" else "48"
        yield Case(item, f"{share:.0%} of a {name}", "truncated", reply(whole[: int(len(whole) * share)]))
    for name, bomb in bad.bombs().items():
        yield Case("49", f"a {name} of too many pixels", "too_many_pixels", reply(bomb))
    yield Case("49", "a JPEG of 500 scans", "too_many_pixels", reply(bad.scan_bomb()))
    long = bad.encoded(np.zeros((20, 4000, 3), np.uint8), "PNG")
    yield Case("50", "4000 × 20 pixels", "bad_aspect", reply(long))
    for name in ("GIF", "WEBP", "PNG", "AVIF"):
        yield Case("51", f"an animation, {name}", "animated", reply(bad.animation(name)))
    yield Case("52", "a TIFF of two pages", "animated", reply(bad.animation("TIFF")))


def _pixels() -> Iterator[Case]:
    scene = bad.scene()
    for orientation in range(2, 9):
        yield Case("53", f"EXIF orientation {orientation}", "ok", reply(bad.turned(orientation)), shows=scene)
    broken = bad.with_segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40))
    yield Case("53", "broken EXIF", "ok", reply(broken), shows=scene)
    ink = np.dstack([255 - scene, np.zeros(scene.shape[:2], np.uint8)])
    yield Case("54", "CMYK, as Adobe inverts it", "ok", reply(bad.encoded(ink, mode="CMYK")), shows=scene, close=10)
    yield Case("55", "16 bits a channel", "ok", reply(bad.deep_png()), shows=scene)
    third = np.tile(np.linspace(0, 85, bad.WIDTH)[:, None], (bad.HEIGHT, 1, 3))
    yield Case("55", "16 bits of grey", "ok", reply(bad.deep_grey_png()), shows=third)
    real = bad.encoded((scene[..., 0] / 255).astype(np.float32), "TIFF")
    yield Case("55", "floats from 0 to 1", "ok", reply(real), shows=scene[..., :1].repeat(3, -1))
    yield Case("56", "a palette with a clear colour", "ok", reply(bad.palette_png()), shows=scene)
    clear = np.dstack([scene, np.full(scene.shape[:2], 255, np.uint8)])
    clear[:24, :32] = (9, 9, 9, 0)
    white = scene.copy()
    white[:24, :32] = 255
    yield Case("57", "transparent pixels over another colour", "ok", reply(bad.encoded(clear, "PNG")), shows=white)
    grey = white[..., 0]
    two = np.dstack([np.where(clear[..., 3], grey, 9), clear[..., 3]]).astype(np.uint8)
    yield Case("57", "the same in grey", "ok", reply(bad.encoded(two, "PNG")), shows=grey[..., None].repeat(3, -1))
    profiled = bad.encoded(name="PNG", icc_profile=bad.swapped_profile())
    yield Case("58", "an ICC profile that is not sRGB", "ok", reply(profiled), shows=scene[..., [1, 0, 2]])
    yield Case("59", "JPEG XL", "unsupported", reply(b"\xff\x0a" + bytes(99)))
    yield Case("59", "HEIC", "unsupported", reply(b"\0\0\0\x18ftypheic" + bytes(99)))
    for name in ("JPEG2000", "TGA", "PPM"):
        yield Case("59", name, "ok", reply(bad.encoded(name=name)), shows=scene)
    yield Case("59", "PSD", "unsupported", reply(b"8BPS\0\1" + bytes(99)))
    yield Case("59", "AVIF", "ok", reply(bad.encoded(name="AVIF", quality=95)), shows=scene, close=12)
    yield Case("60", "a comment that inflates to 100 MB", "truncated", reply(bad.text_bomb()))
    wordy = bad.encoded(name="PNG", pnginfo=bad.long_png_text())
    yield Case("60", "a comment of 1 MB", "ok|truncated", reply(wordy), shows=scene)


def _rows() -> Iterator[Case]:
    yield Case("61", "a caption with a NUL", "ok", good(), text="a\0b")
    yield Case("62", "no caption", "ok", good(), text=None)
    yield Case("66", "an address that stands twice", "ok|duplicate", good(), ("http://{at}/a", "http://{at}/a"))
    yield Case("68", "a caption of 1 MB", "ok", good(), text="word " * 200_000)
    for text in ("🦊🌈", "日本の猫", "قطة جميلة", "\u202eright to left\x07\x1b[31m"):
        yield Case("69", f"the caption {text.encode('unicode_escape').decode()}", "ok", good(), text=text)
    century = reply(b"", 503, "Date: Sat, 01 Jan 2122 00:00:00 GMT", "Retry-After: Sat, 01 Jan 2122 00:00:01 GMT")
    yield Case("80", "503 once, of a host whose clock is a century ahead", "ok", once(century, good()))


def _answers() -> Iterator[Case]:
    """What servers send that browsers read all the same."""
    scene = bad.scene()
    signed = "/a%2Fb%7Ec%28d%29.jpg?Signature=x%2By%3D&u=http%3A%2F%2Fz"
    yield Case("81", "escapes, as they stand", "ok", only(signed, good()), ("http://{at}" + signed,), shows=scene)
    year = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
    after = reply(bad.photo(), 200, f"X-Robots-Tag: unavailable_after: {year}")
    yield Case("82", "a date in a year that no calendar has", "ok", after, shows=scene)
    later = once(reply(b"", 503, f"Retry-After: {year}"), good())
    yield Case("82", "503 once, until such a year", "ok|http_5xx", later)
    yield Case("83", "X-Robots-Tag of 60 kB", "opted_out", reply(bad.photo(), 200, "X-Robots-Tag: " + "a:" * 30_000))
    wild = b"User-agent: *\n" + b"".join(b"Disallow: /*%d*b*c*d$\n" % number for number in range(20_000))
    yield Case("83", "20,000 wildcards in robots.txt", "ok", good(), robots=reply(wild), shows=scene)
    for coding in ("aws-chunked", "utf-8", "none"):
        yield Case(
            "84",
            f"Content-Encoding: {coding}",
            "ok",
            reply(bad.photo(), 200, f"Content-Encoding: {coding}"),
            shows=scene,
        )
    body = bad.photo()
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    both = reply(chunked, 200, "Transfer-Encoding: chunked", length=len(body))
    twice = reply(body := bad.photo(), 200, f"Content-Length: {len(body)}")
    yield Case("85", "Content-Length twice", "ok", twice, shows=scene)
    yield Case("85", "Content-Length with chunks", "ok", both, shows=scene)
    yield Case("85", "a header name with a blank", "ok", reply(bad.photo(), 200, "X Powered By: us"), shows=scene)
    yield Case("85", "a header line without a colon", "ok", reply(bad.photo(), 200, "no colon"), shows=scene)
    yield Case("85", "a header line of 20 kB", "ok", reply(bad.photo(), 200, "X-A: " + "x" * 20_000), shows=scene)
    wall = only("Cookie: pass=1", good(), moved("/image.jpg", 302, "Set-Cookie: pass=1; Path=/"))
    yield Case("86", "a redirect to itself that sets a cookie", "ok", wall, shows=scene)
    yield Case("87", "a JPEG that lacks its end mark", "truncated", reply(bad.photo().removesuffix(b"\xff\xd9")))
    text = bad.photo().replace(b"\n", b"\r\n")
    yield Case("88", "a JPEG with the line ends of a text", "truncated", reply(text))
    yield Case("88", "a JPEG read as UTF-8", "truncated", reply(bad.photo().decode("utf-8", "replace").encode()))
