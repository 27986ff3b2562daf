"""The demo's site: the same each time, and every fault looks on the wire as it is declared."""

import asyncio
import gzip
import http.client
import io
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.images.pixels import ImageError, decode, read_header
from dreamloom.demo.encode import draw, encode
from dreamloom.demo.gallery import RATES, Exhibit, Fault, Form, exhibit
from dreamloom.demo.site import HARMLESS, OPT_OUTS, serve
from dreamloom.demo.world import Scene, Thing, render

EXHIBITS = [exhibit(number) for number in range(3000)]
FAILING = list(RATES)[: list(RATES).index(Fault.MOVED)]


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serve() as url:
        yield url


def first(fault: Fault | None, skip: int = 0) -> Exhibit:
    """The first exhibit with a fault, or one after it."""
    return [shown for shown in EXHIBITS if shown.fault is fault][skip]


def ask(url: str, path: str, timeout: float = 5) -> tuple[int, dict[str, str], bytes]:
    """One request, no redirect followed, nothing decoded."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_rates_are_as_declared() -> None:
    found = [shown.fault for shown in EXHIBITS]
    for fault, rate in RATES.items():
        expected = rate / 1000 * len(EXHIBITS)
        assert abs(found.count(fault) - expected) < 5 * expected**0.5, fault
    assert sum(RATES[f] for f in FAILING) == 250
    assert found.count(None) > 0.6 * len(EXHIBITS)


def test_the_same_number_is_the_same_image_on_another_day(site: str) -> None:
    shown = first(None)
    exhibit.cache_clear()
    again = exhibit(shown.number)
    assert again == shown
    assert ask(site, shown.path)[2] == draw(again)


@pytest.mark.parametrize("form", Form)
def test_every_form_decodes_to_its_scene(form: Form) -> None:
    scene = Scene("white", "flat", (Thing("heart", "red"),), "big", seed=3)
    pixels = render(scene, 160, 120)
    image = decode(encode(pixels, form, turn=1))
    assert image.size == (160, 120)
    # Lossy forms move edges, and transparent white comes back as pure white, 9 levels up
    assert np.abs(np.asarray(image, int) - pixels).mean() < 10
    assert np.abs(np.median(np.asarray(image, int), axis=(0, 1)) - np.median(pixels, axis=(0, 1))).max() <= 10


@pytest.mark.parametrize("turn", range(3))
def test_turned_images_stand_upright_only_by_their_orientation(turn: int) -> None:
    pixels = render(Scene("cyan", "flat", (Thing("triangle", "blue"),), "big"), 96, 128)
    data = encode(pixels, Form.TURNED_JPEG, turn)
    assert read_header(data).orientation in (3, 6, 8)
    with Image.open(io.BytesIO(data)) as raw:
        as_stored = np.asarray(raw.convert("RGB"), int)
    assert as_stored.shape != pixels.shape or np.abs(as_stored - pixels).mean() > 10
    assert np.abs(np.asarray(decode(data), int) - pixels).mean() < 4


def test_images_have_the_sizes_and_formats_that_are_declared(site: str) -> None:
    shown = [e for e in EXHIBITS[:60] if e.fault is None]
    assert len({e.form for e in shown}) >= 4
    for each in shown:
        status, headers, body = ask(site, each.path)
        header = read_header(body)
        assert (status, header.width, header.height) == (200, each.width, each.height)
        assert headers["Content-Type"] == f"image/{header.format.lower()}"


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault.GONE, 404), (Fault.GONE_FOR_GOOD, 410), (Fault.FORBIDDEN, 403), (Fault.BROKEN, 500), (Fault.BUSY, 429)],
)
def test_refusals(site: str, fault: Fault, status: int) -> None:
    for _ in range(2):
        answered, headers, _body = ask(site, first(fault).path)
        assert answered == status
    assert ("Retry-After" in headers) == (fault is Fault.BUSY)


def test_busy_once_gives_the_image_at_the_second_request() -> None:
    shown = first(Fault.BUSY_ONCE)
    with serve() as url:
        status, headers, _ = ask(url, shown.path)
        assert (status, headers["Retry-After"]) == (429, "0")
        assert ask(url, shown.path)[::2] == (200, draw(shown))


def test_missing_images_are_all_the_same_placeholder(site: str) -> None:
    bodies = {ask(site, first(Fault.PLACEHOLDER, skip).path)[2] for skip in range(4)}
    assert len(bodies) == 1
    assert decode(bodies.pop()).size == (300, 200)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.SOFT_404, "not_an_image"),
        (Fault.SVG, "not_an_image"),
        (Fault.EMPTY, "empty"),
        (Fault.TRUNCATED, "truncated"),
        (Fault.PIXEL_BOMB, "too_many_pixels"),
    ],
)
def test_bodies_that_are_no_image(site: str, fault: Fault, reason: str) -> None:
    for skip in range(3):
        status, _, body = ask(site, first(fault, skip).path)
        assert (status, len(body) < 200_000) == (200, True)
        with pytest.raises(ImageError) as caught:
            decode(body)
        assert caught.value.reason == reason


def test_tracking_pixel(site: str) -> None:
    assert decode(ask(site, first(Fault.PIXEL).path)[2]).size == (1, 1)


@pytest.mark.parametrize("fault", [Fault.SHORT_BODY, Fault.RESET])
def test_bodies_that_break_off(site: str, fault: Fault) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        ask(site, first(fault).path)


def test_hang_never_answers_and_drip_never_ends(site: str) -> None:
    with pytest.raises(TimeoutError):
        ask(site, first(Fault.HANG).path, timeout=0.3)
    shown = first(Fault.DRIP)
    with socket.create_connection(("127.0.0.1", urlsplit(site).port)) as connection:
        connection.sendall(f"GET {shown.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connection.settimeout(2)
        received = [connection.recv(4096) for _ in range(4)]
    assert all(received)
    assert len(b"".join(received)) < len(draw(shown)) / 2


def test_endless_body_goes_on_as_long_as_one_reads(site: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(site).netloc, timeout=5)
    connection.request("GET", first(Fault.ENDLESS).path)
    answer = connection.getresponse()
    assert sum(len(answer.read(2**20)) for _ in range(20)) == 20 * 2**20
    connection.close()


@pytest.mark.slow
def test_gzip_bomb_is_small_and_inflates_to_256_mib(site: str) -> None:
    _, headers, body = ask(site, first(Fault.GZIP_BOMB).path)
    assert headers["Content-Encoding"] == "gzip"
    assert len(body) < 400_000
    with gzip.open(io.BytesIO(body)) as inflated:
        assert inflated.seek(0, io.SEEK_END) == 2**28


def test_gzipped_and_mistyped_images_are_images(site: str) -> None:
    shown = first(Fault.GZIPPED)
    _, headers, body = ask(site, shown.path)
    assert (headers["Content-Encoding"], gzip.decompress(body)) == ("gzip", draw(shown))
    shown = first(Fault.WRONG_TYPE)
    _, headers, body = ask(site, shown.path)
    assert (headers["Content-Type"].split(";")[0], body) == ("text/plain", draw(shown))


def test_redirects(site: str) -> None:
    for fault, target in [(Fault.TO_PRIVATE, "http://127.0.0.1:1/"), (Fault.TO_FILE, "file:///")]:
        status, headers, _ = ask(site, first(fault).path)
        assert status in (301, 302, 307, 308)
        assert headers["Location"].startswith(target)
    shown = first(Fault.LOOP)
    assert ask(site, shown.path)[1]["Location"] == shown.path
    shown = first(Fault.MOVED)
    assert ask(site, ask(site, shown.path)[1]["Location"])[2] == draw(shown)


def test_owners_say_no_in_every_way_and_harmless_headers_do_not(site: str) -> None:
    for fault, choices in [(Fault.OPTED_OUT, OPT_OUTS), (Fault.HARMLESS_HEADER, HARMLESS)]:
        shown = [e for e in EXHIBITS if e.fault is fault]
        seen = set()
        for number in {e.number % len(choices): e for e in shown}.values():
            status, headers, body = ask(site, number.path)
            assert (status, body) == (200, draw(number))
            seen |= {pair for pair in choices if headers.get(pair[0]) == pair[1]}
        assert seen == set(choices)


def test_robots_txt_closes_members_only(site: str) -> None:
    from urllib.robotparser import RobotFileParser

    robots = RobotFileParser()
    robots.parse(ask(site, "/robots.txt")[2].decode().splitlines())
    assert not robots.can_fetch("dreamloom", site + first(Fault.ROBOTS).path)
    assert robots.can_fetch("dreamloom", site + first(None).path)


@pytest.mark.parametrize(
    "path", ["/pictures/0.jpg", "/pictures/000000.exe", "/pictures/", "/", "/pictures/" + "9" * 5000]
)
def test_unknown_addresses_are_404(site: str, path: str) -> None:
    assert ask(site, path)[0] == 404


def test_a_word_before_the_number_changes_nothing(site: str) -> None:
    shown = first(None)
    assert ask(site, shown.path.replace("/pictures/", "/pictures/gro%C3%9Fes-herz-"))[2] == draw(shown)


def test_hanging_requests_do_not_hold_up_the_end() -> None:
    async def leave_one_hanging() -> None:
        with serve() as url:
            _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
            writer.write(f"GET {first(Fault.HANG).path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await writer.drain()

    asyncio.run(asyncio.wait_for(leave_one_hanging(), 20))


def test_a_port_in_use_is_one_clear_sentence(site: str) -> None:
    port = urlsplit(site).port
    assert port is not None
    with pytest.raises(UserError, match=str(port)), serve(port):
        pass
