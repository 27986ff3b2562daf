"""A web server with the faults of real data sets, each on a host of its own.

Hosts are addresses in 127.0.1.0/24, so it runs where all of 127.0.0.0/8 is this machine, as on Linux. The cases are in
`bench.hostile_cases`; `bench.hostile_table` runs dreamloom and img2dataset on them.
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
    """A request to a host."""

    path: str
    head: str
    num_requests: int
    """Number of requests for this path, including this one."""
    send: asyncio.StreamWriter


Answer = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """A kind of fault."""

    item: str
    """The number of its kind in docs/scraping.md."""
    what: str
    ours: str
    """The expected status; several, separated by |, where it depends on the machine."""
    answer: Answer | bytes | None = None
    """The response of its host; None: nothing listens, or no request should arrive."""
    urls: tuple[str, ...] = ("http://{at}/image.jpg",)
    robots: Answer | bytes | None = None
    """The response to robots.txt; None: 404."""
    text: str | None = "an image"
    shows: "np.ndarray | None" = None
    """The pixels of the stored image."""
    close: float = 8.0
    """Maximum mean deviation of the stored pixels."""
    never_asked: bool = field(default=False)
    """Whether no connection to its host may be made."""


def reply(body: bytes = b"", status: int = 200, *headers: str, length: int | None = None) -> bytes:
    """Returns a complete response."""
    lines = [f"HTTP/1.1 {status} -", *headers, f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def send(*pieces: bytes, pause_s: float = 0.0, hang: bool = False, reset: bool = False) -> Answer:
    """Returns an answer that sends pieces one by one, then hangs or resets the connection."""

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
    """Returns an answer that ends only after four times the deadline, as img2dataset would read it forever."""

    async def answer(exchange: Exchange) -> None:
        exchange.send.write(beginning)
        until = time.monotonic() + 8
        while time.monotonic() < until:
            exchange.send.write(piece)
            await exchange.send.drain()

    return answer


def once(first: bytes, then: bytes) -> Answer:
    """Returns an answer that differs from the second request on."""

    async def answer(exchange: Exchange) -> None:
        exchange.send.write(first if exchange.num_requests == 1 else then)

    return answer


def only(wanted: str, then: bytes, otherwise: bytes = b"HTTP/1.1 404 -\r\nContent-Length: 0\r\n\r\n") -> Answer:
    """Returns an answer for one path, or for requests with one header line; all others get 404, or another answer."""

    async def answer(exchange: Exchange) -> None:
        exchange.send.write(then if wanted in (exchange.path, *exchange.head.split("\r\n")) else otherwise)

    return answer


def moved(to: str, status: int = 302, *headers: str) -> bytes:
    """Returns a redirect; {at} stands for the host itself, and {port} for the common port."""
    return reply(b"", status, f"Location: {to}", *headers)


_ENDS = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError)


class Site:
    """Serves cases, each at an address of its own. Used as `with Site(cases) as site`."""

    def __init__(self, cases: list[Case]) -> None:
        """Prepares the server; entering the context starts it."""
        self.cases = cases
        self.num_requests: dict[tuple[str, str], int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._full = _full_socket()
        self._place = TemporaryDirectory()
        self.authority = Path(self._place.name) / "good.pem"
        """The certificate to trust, of the one host whose certificate is valid."""

    def __enter__(self) -> "Site":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(_end_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for each in self._full:
            each.close()
        self._place.cleanup()

    def urls(self) -> list[list[str | None]]:
        """Returns the URLs of each case."""
        full_port = self._full[0].getsockname()[1]
        names = {"full": f"127.0.4.1:{full_port}", "expired": f"127.0.3.1:{self.tls_port}"}
        names["secure"] = f"127.0.3.2:{self.tls_port}"
        return [
            [url.format(at=f"{self.address(n)}:{self.port}", port=self.port, **names) or None for url in case.urls]
            for n, case in enumerate(self.cases)
        ]

    @staticmethod
    def address(number: int) -> str:
        """Returns the host of a case."""
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
            num_requests = self.num_requests[host, path] = self.num_requests.get((host, path), 0) + 1
            number = int(host.rpartition(".")[2]) - 1
            case = self.cases[number] if number < len(self.cases) else self.cases[0]
            answer = case.answer
            if path == "/robots.txt":
                answer = reply(b"", 404) if case.robots is None else case.robots
            if isinstance(answer, bytes):
                at, port = f"{host}:{self.port}".encode(), str(self.port).encode()
                writer.write(answer.replace(b"{at}", at).replace(b"{port}", port))
            elif answer is not None:
                await answer(Exchange(path, head, num_requests, writer))
            await writer.drain()
        writer.close()
        return None


async def _leave_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Redirects to the address in the path, over http."""
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
    """Returns a listening socket whose queue is full, so that a new connection hangs, and the sockets that fill it."""
    full = socket.socket()
    full.bind(("127.0.4.1", 0))
    full.listen(0)
    held = [full]
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
        held.append(filler)
    return held


def _tls(file: Path, name: x509.GeneralName, days: int) -> ssl.SSLContext:
    """Returns a server's context with a self-signed certificate that expires in `days`; writes it to a PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a host of bench.hostile")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(common).issuer_name(common).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(500)).not_valid_after(now + timedelta(days))
    builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
    plain = serialization.NoEncryption()
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    file.write_bytes(pem + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
