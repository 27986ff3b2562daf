"""Inputs that the readers of bench/fuzz_readers.py take, which bench/fuzz.py mutates."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin

from dreamloom.base.images.metadata import refusal_xmp

ENCODED = [names + b"\n" + gzip.compress(b"abc" * 20, mtime=0) for names in (b"gzip", b"aws-chunked, x-gzip")]
VALUES = [
    b"unavailable_after: Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    b"unavailable_after: Sat, 01 Jan 2022 00:00:00 GMT, noai",
    b"dreamloom: noai, otherbot: a:b:c, max-snippet: 20; noindex",
    b"Saturday, 01-Jan-22 00:00:00 GMT",
    b"2022-01-01T00:00:00+99:99",
    b"86400",
    b"session=1; Path=/; HttpOnly",
    b"max-age=604800, public, stale-while-revalidate=86400",
    b"attachment; filename=\"a.jpg\"; filename*=UTF-8''%e2%82%ac.jpg",
]
HEADS = [
    b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n"
    b"X-Robots-Tag: noai\r\nX-Robots-Tag: otherbot: unavailable_after: Sat, 01 Jan 2022 00:00:00 GMT\r\n"
    b'Content-Disposition: inline; filename="a.jpg"\r\nCache-Control: max-age=604800\r\n'
    b"Expires: Thu, 01 Jan 2099 00:00:00 GMT\r\nTDM-Reservation: 1",
    b"HTTP/1.1 302 Found\r\nLocation: //h.org/%e4?a=b%2Fc\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2",
    b"HTTP/1.0 429 Too Many Requests\nRetry-After: Wed, 21 Oct 2099 07:28:00 GMT\nDate: Wed, 21 Oct 2099 07:27:00 GMT",
    b"HTTP/1.1 200\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\nContent-Length: 5\r\nfolded: a\r\n  b",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload",
]
ADDRESSES = [
    b"http://user@h.org:8080/a%2Fb/../c?x=%e4&amp;y=[z]#top",
    "https://bücher.de/日本/100%.jpg?ü".encode(),
    b"http://[::ffff:127.0.0.1]:99999/",
    b"http://0x7f.1/\x00",
    b"//cdn.h.org/a.jpg?Signature=a%2Fb%2Bc%3D&Expires=1",
    b"data:image/png;base64,iVBORw0KGgo=",
]
ROBOTS = [
    b"\xef\xbb\xbfUser-agent: *\nDisallow: /a*b$\nAllow: /%e4/%7E\nCrawl-delay: 1e999\n",
    b"User-agent: dreamloom\nUser-agent: *\rCrawl-delay: nan\r\nDisallow: /*?*x=$y\nSitemap: http://h.org/\n",
    b"User-agent: *\nContent-Signal: search=yes, ai-train=no\nContent-Usage: /a/*$ train-ai=y\nAllow: /\n",
]


def _make_pictures() -> list[bytes]:
    image = Image.effect_mandelbrot((24, 16), (-2, -1, 1, 1), 50).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 1.0)}
    exif[0x8769] = {0xA431: "serial", 0x927C: b"maker"}
    xmp = refusal_xmp("iptc: DMI-PROHIBITED")
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    info.add_text("Raw profile type exif", "\nexif\n 4\n45786966", zip=True)
    options: dict[str, dict[str, object]] = {
        "JPEG": {"exif": exif, "xmp": xmp, "comment": b"c2pa.training-mining c2pa.ai_training use notAllowed"},
        "PNG": {"exif": exif, "pnginfo": info},
        "WEBP": {"exif": exif, "xmp": xmp},
        "TIFF": {"compression": "tiff_lzw"},
        "GIF": {"save_all": True, "append_images": [image.rotate(90)]},
        **{name: {} for name in ("BMP", "ICO", "TGA", "PPM", "JPEG2000", "MPO")},
    }
    made = []
    for name, own in options.items():
        stream = io.BytesIO()
        image.save(stream, name, **own)
        made.append(stream.getvalue())
    stream = io.BytesIO()
    image.save(stream, "JPEG", progressive=True)
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x78\0\3abc"
    jpeg = stream.getvalue()
    return [*made, jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc + jpeg[2:]]


PICTURES = _make_pictures()


TEXTS = [b"a red car on a road_(2).jpg", "un café_1".encode(), "ein Bär".encode("latin-1"), "a cat".encode("utf-16")]
YAMLS = [
    b"main_prompt: a cat\ntags:\n  - tag: red\n    weight: 0.5\n  - blue\nrating: 1.5\n",
    b"caption: &a [a, b]\nother: *a\n? x\n: |\n  text\nnumber: 0x1F\nday: 2024-01-01\n",
    b"--- {a: 'b', c: [~, .nan, 1e3, !!int '3']}\n...\n",
]
JSONS = [
    b'{"caption": "a cat", "text": ["a", "b"], "width": 10, "nan": NaN, "x": {"y": [1, 2.5e3, null, true]}}',
    b'["a \\ud83d\\ude00", "b"]',
    '{"caption": "é"}'.encode("utf-16"),
]
TABLES = [
    b'file_name,text\na.jpg,a cat\n"b,c.jpg","a ""dog"""\n',
    b"url\tcaption\nhttp://h.org/a.jpg\t['a cat', 'a dog']\n",
    b'{"file_name": "a.jpg", "text": "a cat"}\n{"url": "http://h.org/b.jpg", "caption": ["a", "b"]}\n',
    b"http://h.org/a.jpg\nhttp://h.org/b.jpg\n",
]
COCO = [
    json.dumps(
        {
            "images": [
                {"id": 9, "file_name": "9.jpg", "license": 1, "width": 4, "height": 3, "coco_url": "http://h/9"}
            ],
            "annotations": [{"id": 1, "image_id": 9, "caption": "a cat"}],
            "licenses": [{"id": 1, "name": "CC", "url": "http://h/l"}],
        }
    ).encode()
]
KOHYA = [b'{"a": {"caption": "a cat", "tags": "red, blue"}, "/b/c.png": {"caption": "", "train_resolution": [1, 2]}}']


def _make_tar(format: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
        texts = {
            "a.txt": b"a cat",
            "a.json": JSONS[0],
            "a.jpg": PICTURES[0],
            f"{'long' * 20}/é{'x' * 80} v1.2.png": PICTURES[1],
        }
        for name, data in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _make_zip(compression: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("a.jpg", PICTURES[0])
        archive.writestr("é/b.png", PICTURES[1])
        archive.writestr("a.txt", "a cat")
    return stream.getvalue()


_ROWS = pa.table(
    {
        "image": [{"bytes": PICTURES[0], "path": "a.jpg"}, {"bytes": PICTURES[1], "path": None}, None],
        "text": ["a cat", "ein Bär", None],
        "url": ["http://h.org/a.jpg", None, "x"],
    }
)


def _make_parquet(compression: str) -> bytes:
    stream = io.BytesIO()
    pq.write_table(_ROWS, stream, compression=compression)
    return stream.getvalue()


def _make_arrow(open_writer: Callable[..., pa.RecordBatchStreamWriter]) -> bytes:
    stream = io.BytesIO()
    with open_writer(stream, _ROWS.schema) as writer:
        writer.write_table(_ROWS)
    return stream.getvalue()


def _make_safetensors(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


TARS = [_make_tar(format) for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
ZIPS = [_make_zip(compression) for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
PARQUETS = [_make_parquet(compression) for compression in ("none", "snappy")]
ARROWS = [_make_arrow(pa.ipc.new_stream), _make_arrow(pa.ipc.new_file)]
SAFETENSORS = [
    _make_safetensors(
        {"__metadata__": {"format": "pt"}, "a.weight": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}}
    )
]
