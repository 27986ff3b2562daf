"""The readers of what strangers write, each with golden inputs and the errors that it documents; for bench/fuzz.py."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import pyarrow.parquet as pq
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from bench import fuzz_golden as golden
from dreamloom.base.errors import UserError
from dreamloom.base.images.metadata import find_refusal, without_private_metadata
from dreamloom.base.images.missing_end import with_end
from dreamloom.base.images.pixels import ImageError, check_whole, decode, read_exif, read_header
from dreamloom.base.tables.documents import DocumentError, decode_text, parse_json, parse_yaml
from dreamloom.base.tables.tables import caption_texts, parse_table
from dreamloom.caption.filename import read_name
from dreamloom.caption.sidecar import parse_entries, read_caption
from dreamloom.scrape.collection import CaptionKind
from dreamloom.scrape.datasets.coco_captions import read_photos
from dreamloom.scrape.datasets.kohya import match_metadata
from dreamloom.scrape.datasets.metadata import CaptionRules, metadata_from_row
from dreamloom.scrape.datasets.parquet import part_reader, plan_parts
from dreamloom.scrape.datasets.webdataset import read_shard, sample_image
from dreamloom.scrape.datasets.zip_members import open_zip
from dreamloom.scrape.index.files import IndexFile
from dreamloom.scrape.index.lists import as_parquet
from dreamloom.scrape.web.address import check_url
from dreamloom.scrape.web.content_encoding import decompressor
from dreamloom.scrape.web.cookies import add_cookies
from dreamloom.scrape.web.http import retry_after
from dreamloom.scrape.web.http_dates import parse_http_date
from dreamloom.scrape.web.optout import read_consent
from dreamloom.scrape.web.outcome import RowDropped
from dreamloom.scrape.web.response_head import MAX_HEAD_BYTES, clean_head, is_interim
from dreamloom.scrape.web.robots_rules import parse_robots
from dreamloom.train.data.control_files import FolderSettings
from dreamloom.train.data.shards import read_shard as read_training_shard
from dreamloom.train.model.safetensors_header import read_metadata, read_tensor_shapes

CAPTIONS = CaptionRules(CaptionKind.ALT)


@dataclass(frozen=True)
class Reader:
    """A reader of bytes that a stranger wrote."""

    name: str
    read: Callable[[bytes], object]
    golden: Sequence[bytes]
    """Inputs that it takes."""
    raises: tuple[type[Exception], ...] = ()
    """The errors that it documents."""
    share: int = 1
    """How many of a hundred or so cases it gets."""


def make_readers(folder: Path) -> list[Reader]:
    """Returns all readers.

    Args:
        folder: where those that read files find theirs.
    """

    def of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def write_and_read(data: bytes) -> object:
            path = folder / name
            path.write_bytes(data)
            return read(path)

        return write_and_read

    return [
        Reader("response head", read_head, golden.HEADS, (ValueError, HttpProcessingError, RowDropped), 12),
        Reader("header values", read_values, golden.VALUES, (), 12),
        Reader("content encoding", read_encoded, golden.ENCODED, (RowDropped,), 4),
        Reader("addresses", read_addresses, golden.ADDRESSES, (), 12),
        Reader("robots.txt", read_robots, golden.ROBOTS, (), 8),
        Reader("image metadata", read_image_metadata, golden.PICTURES, (), 8),
        Reader("images", read_image, golden.PICTURES, (ImageError,), 6),
        Reader(
            "YAML",
            lambda data: parse_entries(parse_yaml(decode_text(data), typed=False)),
            golden.YAMLS,
            (DocumentError,),
            5,
        ),
        Reader("typed YAML", lambda data: parse_yaml(decode_text(data)), golden.YAMLS, (DocumentError,), 3),
        Reader("JSON", read_json, golden.JSONS, (DocumentError,), 8),
        Reader("sidecars", partial(read_sidecars, folder), [*golden.YAMLS, *golden.JSONS, *golden.TEXTS], (), 3),
        Reader("names", lambda data: read_name(data.decode("utf-8", "surrogateescape")), golden.TEXTS, (), 4),
        Reader("tables", read_tables, golden.TABLES, (DocumentError,), 4),
        Reader("address lists", partial(read_lists, folder), golden.TABLES, (UserError,), 2),
        Reader(
            "COCO",
            of_file("captions.json", lambda file: read_photos.__wrapped__(file, "")),
            golden.COCO,
            (UserError,),
            3,
        ),
        Reader(
            "kohya",
            of_file("meta_cap.json", lambda file: match_metadata(file, folder, ["a.png"])),
            golden.KOHYA,
            (UserError,),
            3,
        ),
        Reader("tar", of_file("00000.tar", read_tar), golden.TARS, (), 4),
        Reader("zip", of_file("a.zip", read_zip), golden.ZIPS, (UserError,), 4),
        Reader("parquet", of_file("rows.parquet", read_rows), golden.PARQUETS, (UserError,), 3),
        Reader("arrow", of_file("rows.arrow", read_rows), golden.ARROWS, (UserError,), 2),
        Reader("safetensors", of_file("a.safetensors", read_safetensors), golden.SAFETENSORS, (UserError,), 5),
    ]


# The web


def read_head(data: bytes) -> None:
    """As dreamloom.scrape.web.response_head passes it to aiohttp."""
    is_interim(data)
    parser = HttpResponseParser(
        BaseProtocol(_LOOP),
        _LOOP,
        2**16,
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
        response_with_body=True,
        read_until_eof=True,
    )
    messages, _, _ = parser.feed_data(clean_head(data))
    for message, _ in messages:
        headers = message.headers
        read_consent(headers)
        retry_after(headers)
        add_cookies("a=1", headers.getall("Set-Cookie", []))
        decompressor(headers)
        if "Location" in headers:
            check_url(urljoin("http://h.org/a", headers["Location"].strip()))


_LOOP = asyncio.new_event_loop()


def read_values(data: bytes) -> None:
    """As aiohttp gives them: bytes that are not UTF-8 as surrogates."""
    text = data.decode("utf-8", "surrogateescape")
    names = ("X-Robots-Tag", "TDM-Reservation", "Retry-After", "Date", "Set-Cookie")
    headers = CIMultiDictProxy(CIMultiDict((name, text) for name in names))
    if len(read_consent(headers).statement) > 300:
        raise AssertionError("a statement of more than 300 characters")
    if (retry_after(headers) or 0.0) < 0.0:
        raise AssertionError("a wait of less than nothing")
    add_cookies("a=1", [text])
    parse_http_date(text)


def read_encoded(data: bytes) -> None:
    """A body in the encodings that its first line names."""
    names, _, body = data.partition(b"\n")
    decompress = decompressor(CIMultiDictProxy(CIMultiDict({"Content-Encoding": names.decode("latin-1")})))
    if decompress is not None and len(decompress(body, 1000)) > 1000:
        raise AssertionError("more than was asked for")


def read_addresses(data: bytes) -> None:
    """An address, and the same as a redirect."""
    text = data.decode("utf-8", "surrogateescape")
    texts = [text]
    with contextlib.suppress(ValueError):
        texts.append(urljoin("http://h.org/a/b?c", text))
    for each in texts:
        with contextlib.suppress(RowDropped):
            url = check_url(each)
            str(url).encode("ascii")
            if set(url.raw_path_qs) & set(" \r\n\t\0#"):
                raise AssertionError("a blank in a request")


def read_robots(data: bytes) -> None:
    """The rules, and what they say of two paths."""
    robots = parse_robots(data.decode("utf-8-sig", "replace"), "dreamloom")
    robots.allows("/a/b?x=y")
    robots.allows("/" + data[:1000].decode("latin-1"))
    if not 0.0 <= robots.crawl_delay_s < float("inf"):
        raise AssertionError("no delay that can be waited for")


# Images


def read_image_metadata(data: bytes) -> None:
    """What an image says of itself, and itself without what is private."""
    find_refusal(data)
    without_private_metadata(data)
    with_end(data)


def read_image(data: bytes) -> None:
    """Header, EXIF, pixels."""
    header = read_header(data)
    read_exif(data)
    check_whole(data, max_pixels=2**20)
    if decode(data, max_pixels=2**20).mode != "RGB" or header.width < 1:
        raise AssertionError("no image")


# Texts


def read_json(data: bytes) -> None:
    """As the metadata of an image."""
    document = parse_json(data)
    if isinstance(document, dict):
        metadata_from_row(document, CAPTIONS)


def read_sidecars(folder: Path, data: bytes) -> None:
    """As each of an image's sidecars alone."""
    own = folder / "sidecars"
    own.mkdir(exist_ok=True)
    suffix = (".txt", ".caption", ".yaml", ".json")[len(data) % 4]
    file = own / f"a{suffix}"
    file.write_bytes(data)
    read_caption(own / "a.jpg").text.encode()
    file.unlink()


def read_tables(data: bytes) -> None:
    """As CSV and as JSON lines."""
    for suffix in (".csv", ".jsonl"):
        for row in parse_table(suffix, data):
            for value in row.cells.values():
                caption_texts(value)


def read_lists(folder: Path, data: bytes) -> None:
    """As a list of addresses of each kind."""
    path = folder / ("list" + (".csv", ".tsv", ".txt", ".jsonl")[len(data) % 4])
    path.write_bytes(data)
    made = as_parquet(IndexFile(str(path)), folder)
    pq.read_table(made.name).to_pylist()
    Path(made.name).unlink()


# Archives and tables


def read_tar(file: Path) -> None:
    """As a webdataset's shard, and as one of a training folder."""
    for sample in read_shard(file, lambda message: None):
        content = sample_image(sample, "key", CAPTIONS).content
        if callable(content):
            with contextlib.suppress(ImageError):
                content()
    read_training_shard(str(file), "00000.tar", FolderSettings())


def read_zip(file: Path) -> None:
    """All images of an archive."""
    archive = open_zip(file)
    for name in archive.images:
        with contextlib.suppress(ImageError):
            archive.read(name, 2**20)
    archive.archive.close()


def read_rows(file: Path) -> None:
    """All images of a table."""
    plan = plan_parts([file], 1000, None)
    reader = part_reader(file.parent, plan, None, CAPTIONS)
    kinds = Counter[bool]()
    for part in plan:
        for image in reader(part)[1]:
            kinds[callable(image.content)] += 1


def read_safetensors(file: Path) -> None:
    """Shapes and metadata."""
    read_tensor_shapes(file)
    read_metadata(file)
