"""The bad web of data sets, each kind of fault on a host of its own; what dreamloom makes of it, and img2dataset 1.47.

    python -m bench.hostile_table    prints the table of docs/scraping.md

Hosts are addresses of 127.0.1.0/24, so it runs where all of 127.0.0.0/8 is this machine, as on Linux.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Exchange:
    """One request that a host got."""

    path: str
    head: str
    asked: int
    """How often this path was asked for, this time too."""
    send: asyncio.StreamWriter


Answer = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One kind of fault."""

    item: str
    """Its kind, as docs/scraping.md has it."""
    what: str
    ours: str
    """The status it gets; several where it depends on the machine, parted by |."""
    answer: Answer | bytes | None = None
    """What its host answers; None: nothing listens, or nobody should ask."""
    urls: tuple[str, ...] = ("http://{at}/image.jpg",)
    robots: Answer | bytes | None = None
    """Its robots.txt; None: it has none."""
    text: str | None = "an image"
    shows: "np.ndarray | None" = None
    """What must be seen on the stored image."""
    close: float = 8.0
    """How far the pixels may be off, on average."""
    never_asked: bool = field(default=False)
    """Whether its host must not be connected to."""


def reply(body: bytes = b"", status: int = 200, *headers: str, length: int | None = None) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} -", *headers, f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def send(*pieces: bytes, pause_s: float = 0.0, hang: bool = False, reset: bool = False) -> Answer:
    """Sends pieces one after the other; then hangs, or breaks off."""

    async def answer(exchange: Exchange) -> None:
        for piece in pieces:
            exchange.send.write(piece)
            await exchange.send.drain()
            await asyncio.sleep(pause_s)
        if hang:
            await asyncio.sleep(3600)
        if reset:
            exchange.send.transport.abort()

    return answer


def endless(beginning: bytes, piece: bytes) -> Answer:
    """An answer that has no end, or none for four times the deadline: img2dataset would read it for ever."""

    async def answer(exchange: Exchange) -> None:
        exchange.send.write(beginning)
        until = time.monotonic() + 8
        while time.monotonic() < until:
            exchange.send.write(piece)
            await exchange.send.drain()

    return answer


def once(first: bytes, then: bytes) -> Answer:
    """Another answer to the second request."""

    async def answer(exchange: Exchange) -> None:
        exchange.send.write(first if exchange.asked == 1 else then)

    return answer


def only(wanted: str, then: bytes) -> Answer:
    """The image for one path (or one line of the request), 404 for every other."""

    async def answer(exchange: Exchange) -> None:
        exchange.send.write(then if wanted in (exchange.path, *exchange.head.split("\r\n")) else reply(b"", 404))

    return answer


def moved(to: str, status: int = 302, *headers: str) -> bytes:
    """A redirect; {at} stands for the host itself, and {port} for the port of all."""
    return reply(b"", status, f"Location: {to}", *headers)


_ENDS = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError)


class Site:
    """Serves cases, each at an address of its own. A context: it ends with its block."""

    def __init__(self, cases: list[Case]) -> None:
        self.cases = cases
        self.asked: dict[tuple[str, str], int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._full = _full_socket()
        self._place = TemporaryDirectory()
        self.authority = Path(self._place.name) / "good.pem"
        """Whom to trust, for the one host whose certificate is good."""

    def __enter__(self) -> "Site":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(_end_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for one in self._full:
            one.close()
        self._place.cleanup()

    def urls(self) -> list[list[str | None]]:
        """The addresses of each case."""
        full_port = self._full[0].getsockname()[1]
        names = {"full": f"127.0.4.1:{full_port}", "expired": f"127.0.3.1:{self.tls_port}"}
        names["secure"] = f"127.0.3.2:{self.tls_port}"
        return [
            [url.format(at=f"{self.address(n)}:{self.port}", port=self.port, **names) or None for url in case.urls]
            for n, case in enumerate(self.cases)
        ]

    @staticmethod
    def address(number: int) -> str:
        """The host of a case."""
        return f"127.0.1.{number + 1}"

    async def _start(self) -> None:
        hosts = [self.address(n) for n in range(len(self.cases))]
        first = await asyncio.start_server(self._answer, hosts[0], 0, limit=2**20)
        self.port = int(first.sockets[0].getsockname()[1])
        await asyncio.start_server(self._answer, hosts[1:], self.port, limit=2**20)
        expired = _tls(self.authority.with_name("expired.pem"), x509.DNSName("elsewhere.example"), days=-100)
        tls = await asyncio.start_server(self._answer, "127.0.3.1", 0, ssl=expired)
        self.tls_port = int(tls.sockets[0].getsockname()[1])
        good = _tls(self.authority, x509.IPAddress(IPv4Address("127.0.3.2")), days=100)
        await asyncio.start_server(_leave_tls, "127.0.3.2", self.tls_port, ssl=good)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(*_ENDS):
            first = await reader.readexactly(1)
            if first == b"\x16":  # the first byte of TLS
                writer.write(reply(b"", 400))
                return writer.close()
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ")[1]
            host = writer.get_extra_info("sockname")[0]
            asked = self.asked[host, path] = self.asked.get((host, path), 0) + 1
            number = int(host.rpartition(".")[2]) - 1
            case = self.cases[number] if number < len(self.cases) else self.cases[0]
            answer = case.answer
            if path == "/robots.txt":
                answer = reply(b"", 404) if case.robots is None else case.robots
            if isinstance(answer, bytes):
                at, port = f"{host}:{self.port}".encode(), str(self.port).encode()
                writer.write(answer.replace(b"{at}", at).replace(b"{port}", port))
            elif answer is not None:
                await answer(Exchange(path, head, asked, writer))
            await writer.drain()
        writer.close()
        return None


async def _leave_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends to the address that is the path, over http."""
    with contextlib.suppress(*_ENDS):
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        writer.write(reply(b"", 404) if path == b"/robots.txt" else moved(f"http:/{path.decode()}"))
        await writer.drain()
    writer.close()


async def _end_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _full_socket() -> list[socket.socket]:
    """A socket that nobody accepts from, whose queue is full, so that another connection hangs; and what fills it."""
    full = socket.socket()
    full.bind(("127.0.4.1", 0))
    full.listen(0)
    held = [full]
    for _ in range(4):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(full.getsockname())
        held.append(one)
    return held


def _tls(file: Path, name: x509.GeneralName, days: int) -> ssl.SSLContext:
    """A server's context, by a certificate that it issues to itself, which ends in so many days; in a file of PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a host of bench.hostile")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(common).issuer_name(common).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(500)).not_valid_after(now + timedelta(days))
    made = made.add_extension(x509.SubjectAlternativeName([name]), critical=False)
    plain = serialization.NoEncryption()
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    file.write_bytes(pem + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
