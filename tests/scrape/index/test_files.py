"""An index in S3: listed, its footers read, its columns read by DuckDB, through fsspec, from a server on loopback."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.files import find_index_files
from dreamloom.scrape.index.filter import filter_laion, is_current


class S3(BaseHTTPRequestHandler):
    """As much of S3 as reading asks for: ListObjectsV2, HeadObject, GetObject with Range."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    asked: list[str]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        _, bucket, key = (*unquote(url.path).split("/", 2), "")[:3]
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        if not key:
            self.answer(200, self.listing(bucket, query.get("prefix", ""), query.get("delimiter", "")).encode())
        elif key not in self.objects:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self.send(self.objects[key])

    do_HEAD = do_GET

    def send(self, data: bytes) -> None:
        headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
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
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[S3]]:
    """A server with no object, which S3's own variables of the environment name."""
    handler = type("Handler", (S3,), {"objects": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    S3FileSystem.clear_instance_cache()  # which may know another server
    yield handler
    S3FileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_index_in_s3_gives_what_the_same_files_give_here(tmp_path: Path, s3: type[S3]) -> None:
    for number in range(3):
        names = [f"http://h.org/{number}-{row}.jpg" for row in range(50)]
        table = pa.table(
            {"URL": names, "TEXT": ["a person"] * 50, "WIDTH": list(range(490, 540)), "HEIGHT": [600] * 50}
        )
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=20)
        s3.objects[f"laion/en/{number}.parquet"] = (tmp_path / f"{number}.parquet").read_bytes()
    s3.objects["laion/notes.txt"] = b"not of the index"
    near = Collection(tmp_path / "near")
    filter_laion(near, FilterConfig(index=[str(tmp_path / "*.parquet")]))
    expected = near.read(Table.CANDIDATES)
    assert len(expected) == 3 * 28
    for number, index in enumerate(["s3://bucket/laion/en", "s3://bucket/laion/*/*.parquet"]):
        far, config = Collection(tmp_path / f"far-{number}"), FilterConfig(index=[index])
        filter_laion(far, config)
        assert far.read(Table.CANDIDATES).equals(expected)
        assert is_current(far, config)
    assert s3.asked
    s3.objects["laion/en/1.parquet"] = s3.objects["laion/en/2.parquet"]
    assert not is_current(far, config)


@pytest.mark.parametrize("pattern", ["", "*.parquet", "**/*.parquet"])
def test_what_systems_leave_is_no_index(tmp_path: Path, pattern: str) -> None:
    pq.write_table(pa.table({"url": ["http://a/"]}), tmp_path / "0.parquet")
    for leaving in ("._0.parquet", "@eaDir/0.parquet", "$RECYCLE.BIN/1.parquet"):
        (tmp_path / leaving).parent.mkdir(exist_ok=True)
        (tmp_path / leaving).write_bytes(b"no parquet")
    assert [file.name for file in find_index_files([str(tmp_path / pattern)])] == [str(tmp_path / "0.parquet")]
