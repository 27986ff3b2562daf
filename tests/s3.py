"""A server on loopback that speaks some of S3."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest


class S3(BaseHTTPRequestHandler):
    """As much of S3 as is asked for: ListObjectsV2, HeadObject, GetObject with Range, PutObject if, DeleteObject."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    asked: list[str]
    """Ranges that were asked for."""
    got: list[str]
    """Objects that were read whole."""
    put: list[str]
    room: int
    """Objects that it takes."""
    refusing: list[int]
    """What it answers to the next requests for objects instead of them: 503; 0, nothing, as a server does that dies; or
    403, for ever where that comes last."""
    away: list[int]
    """The same, for requests of any kind."""
    late: list[int]
    """The same, for objects that it has put all the same."""
    heeds: bool
    """Whether it heeds If-Match."""
    before_put: Callable[[str], object]
    """Called with an object's name before it is put."""
    writing = threading.Lock()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        _, bucket, key = (*unquote(url.path).split("/", 2), "")[:3]
        if self.refused(self.away):
            return
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        if not key:
            self.answer(200, self.listing(bucket, query.get("prefix", ""), query.get("delimiter", "")).encode())
        elif self.refused(self.refusing):
            return
        elif key not in self.objects:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            if self.command == "GET" and "Range" not in self.headers:
                self.got.append(key)
            self.send(self.objects[key])

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        _, _, key = unquote(urlsplit(self.path).path).split("/", 2)
        data = self.rfile.read(int(self.headers["Content-Length"]))
        with self.writing:
            type(self).before_put(key)
            if self.refused(self.away):
                return
            there = self.objects.get(key)
            if len(self.objects) >= self.room:
                self.answer(403, b"<Error><Code>QuotaExceeded</Code><Message>The bucket is full.</Message></Error>")
                return
            if self.heeds and "If-Match" in self.headers and there is None:
                self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                return
            is_other = self.headers.get("If-Match", _tag(there)) != _tag(there)
            if self.heeds and (is_other or ("If-None-Match" in self.headers and there is not None)):
                self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                return
            self.put.append(key)
            self.objects[key] = data
        if not self.refused(self.late):
            self.answer(200, b"", {"ETag": _tag(data)})

    def do_DELETE(self) -> None:
        _, _, key = unquote(urlsplit(self.path).path).split("/", 2)
        if not self.refused(self.away):
            self.objects.pop(key, None)
            self.answer(204, b"")

    def refused(self, statuses: list[int]) -> bool:
        if not statuses:
            return False
        status = statuses[0] if statuses == [403] else statuses.pop(0)
        if not status:
            self.close_connection = True
            return True
        code = {403: "ExpiredToken", 503: "ServiceUnavailable"}[status]
        body = f"<Error><Code>{code}</Code><Message>The token has expired, or so.</Message></Error>"
        self.answer(status, body.encode())
        return True

    def send(self, data: bytes) -> None:
        headers = {"ETag": _tag(data), "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
        if span := self.headers.get("Range"):
            first, last = (int(place) for place in span.removeprefix("bytes=").split("-"))
            self.asked.append(span)
            headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            self.answer(206, data[first : last + 1], headers)
        else:
            self.answer(200, data, headers)

    def listing(self, bucket: str, prefix: str, delimiter: str) -> str:
        contents, folders = "", set()
        for key, data in sorted(self.objects.items()):
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                continue
            tag = hashlib.md5(data).hexdigest()
            contents += f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>{tag}</ETag>"
            contents += "<LastModified>2025-01-01T00:00:00.000Z</LastModified></Contents>"
        contents += "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders))
        return f"<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _tag(data: bytes | None) -> str:
    return f'"{hashlib.md5(data or b"").hexdigest()}"'


@contextmanager
def serve_s3() -> Iterator[type[S3]]:
    """Runs a server with no object, which S3's own variables of the environment name."""
    from s3fs import S3FileSystem  # takes a second, which few tests need

    told: dict[str, object] = {"asked": [], "got": [], "put": [], "before_put": staticmethod(lambda _: None)}
    handler = type(
        "Handler", (S3,), told | {"objects": {}, "room": 1000, "refusing": [], "away": [], "late": [], "heeds": True}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_MAX_ATTEMPTS", "1")  # botocore's own retries wait for seconds
        S3FileSystem.clear_instance_cache()  # which may know another server
        yield handler
        S3FileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()
    thread.join()
