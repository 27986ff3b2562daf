"""Shards come in whole: img2dataset's with each row that failed, others with what their members say."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.caption.formats import FORMATS
from dreamloom.scrape.collection import CaptionKind, Collection, Status, Table
from dreamloom.scrape.datasets.img2dataset_errors import status_from_message
from dreamloom.scrape.datasets.webdataset import WebdatasetConfig, ingest_webdataset, recipes
from dreamloom.train.data.folder import read_training_folder
from tests.s3 import S3

Row = dict[str, Any]


def encode_image(number: int, size: tuple[int, int] = (24, 16), kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def by_img2dataset(folder: Path, shard: int, count: int = 4, failed: tuple[int, ...] = ()) -> None:
    """A shard as img2dataset 1.47 writes it: its table in the order in which downloads ended, failures in it alone."""
    members: dict[str, bytes] = {}
    rows: list[Row] = []
    for number in reversed(range(count)):
        key = f"{shard:05d}{number:04d}"
        row: Row = {
            "url": f"http://h/{key}",
            "caption": f" a car {key} ",
            "LICENSE": "cc0",
            "key": key,
            "status": "success",
        }
        row |= {"error_message": None, "width": 24, "height": 16, "original_width": 48, "original_height": 32}
        row["sha256"] = key
        if number in failed:
            row |= {"status": "failed_to_download", "error_message": "HTTP Error 404: Not Found", "sha256": None}
            row |= dict.fromkeys(("width", "height", "original_width", "original_height"))
        else:
            members |= {f"{key}.jpg": encode_image(number), f"{key}.txt": str(row["caption"]).encode()}
            members[f"{key}.json"] = json.dumps(row).encode()
        rows.append(row)
    tar(folder / f"{shard:05d}.tar", members)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet")
    (folder / f"{shard:05d}_stats.json").write_text("{}")


def rows_of(collection: Collection) -> list[Row]:
    return list(collection.read(Table.RECORDS).to_pylist())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cars"


def test_each_row_of_img2dataset_s_is_there_in_order(folder: Path, collection: Collection) -> None:
    by_img2dataset(folder, 0, failed=(1,))
    by_img2dataset(folder, 7)
    summary = ingest_webdataset(collection, WebdatasetConfig(path=folder))
    assert (summary.rows, summary.kept, summary.dropped) == (8, 7, {"http_404": 1})
    assert collection.parts(Table.RECORDS) == ["00000", "00007"]
    rows = rows_of(collection)
    assert [row["url"][-9:] for row in rows] == [f"{s:05d}{n:04d}" for s in (0, 7) for n in range(4)]
    first, failed = rows[:2]
    assert (first["text"], first["text_kind"], first["licence"]) == ("a car 000000000", CaptionKind.ALT, "cc0")
    assert (first["width"], first["original_width"], first["sha256"]) == (24, 48, "000000000")
    assert (collection.root / first["image"]).read_bytes() == encode_image(0)
    assert first["path"] == str(folder / "00000.tar" / "000000000.jpg")
    assert (failed["status"], failed["detail"], failed["image"]) == ("http_404", "HTTP Error 404: Not Found", None)
    assert len({row["key"] for row in rows}) == 8


def test_captions_are_of_the_kind_that_is_said(folder: Path, collection: Collection) -> None:
    by_img2dataset(folder, 0)
    ingest_webdataset(collection, WebdatasetConfig(path=folder, caption_kind="human"))
    assert {row["text_kind"] for row in rows_of(collection)} == {CaptionKind.HUMAN}
    ingest_webdataset(collection, WebdatasetConfig(path=folder, caption_kind="none"))
    assert {(row["text"], row["text_kind"]) for row in rows_of(collection)} == {(None, CaptionKind.NONE)}


def test_a_shard_without_a_table_says_it_by_its_members(folder: Path, collection: Collection) -> None:
    cut = encode_image(3)[:-100]
    shard = tar(
        folder / "train-0.tar",
        {
            "a/one.jpeg": encode_image(0),
            "a/one.txt": "ein Auto, groß\n".encode(),
            "b.c/one.seg.png": b"not the image",
            "b.c/one.png": encode_image(1, kind="PNG"),
            "b.c/one.json": json.dumps({"url": "http://x/1", "Caption": "a bus", "license": "mit"}).encode(),
            "two.JPG": cut,
            "two.json": b"{broken",
            "words.txt": b"only words",
            "README": b"no sample",
        },
    )
    ingest_webdataset(collection, WebdatasetConfig(path=shard))
    rows = {row["path"].removeprefix(f"{shard}/"): row for row in rows_of(collection)}
    assert {path: row["status"] for path, row in rows.items()} == {
        "a/one.jpeg": Status.OK,
        "b.c/one.png": Status.OK,
        "two.jpg": Status.TRUNCATED,
        "words": Status.MISSING_FILE,
    }
    assert rows["a/one.jpeg"]["text"] == "ein Auto, groß"
    bus = rows["b.c/one.png"]
    assert (bus["text"], bus["url"], bus["licence"], bus["original_width"]) == ("a bus", "http://x/1", "mit", 24)
    assert rows["words"]["text"] == "only words"


def test_a_new_shard_makes_its_own_part_alone(folder: Path, collection: Collection) -> None:
    config = WebdatasetConfig(path=folder)
    for shard in (0, 2):
        by_img2dataset(folder, shard)
    assert ingest_webdataset(collection, config).parts_done == 2
    by_img2dataset(folder, 1)
    again = ingest_webdataset(collection, config)
    assert (again.parts_done, again.parts_before, again.kept) == (1, 2, 12)
    assert ingest_webdataset(collection, config, parts=["00001"]).rows == 4


def test_what_is_no_finished_shard_is_refused(folder: Path, collection: Collection) -> None:
    with pytest.raises(UserError, match="is not a shard and holds none"):
        recipes(collection, WebdatasetConfig(path=folder))
    by_img2dataset(folder, 0)
    tar(folder / "00001.tar", {})
    with pytest.raises(UserError, match=r"00001\.tar is not finished"):
        recipes(collection, WebdatasetConfig(path=folder))


def test_a_shard_that_breaks_off_gives_what_is_whole_and_says_so(folder: Path, collection: Collection) -> None:
    for shard in range(3):
        by_img2dataset(folder, shard)
    whole = (folder / "00001.tar").read_bytes()
    config = WebdatasetConfig(path=folder)
    for broken, kept in ((b"no tar at all", 8), (whole[: len(whole) // 2], 11)):
        (folder / "00001.tar").write_bytes(broken)
        summary = ingest_webdataset(collection, config)
        assert (summary.kept, summary.dropped["truncated"]) == (kept, 1)
        rows = collection.read(Table.RECORDS, "00001").to_pylist()
        assert rows[-1]["status"] == "truncated"
        assert rows[-1]["detail"].startswith(f"{folder}/00001.tar can't be read as a tar")
    (folder / "00001.parquet").write_bytes(b"no table")
    assert ingest_webdataset(collection, config).dropped["truncated"] == 2
    (folder / "00001.tar").write_bytes(whole)
    by_img2dataset(folder, 1)
    assert "truncated" not in ingest_webdataset(collection, config).dropped


@pytest.mark.parametrize(
    ("message", "status"),
    [  # messages of img2dataset 1.47 about a hostile server
        ("HTTP Error 403: Forbidden", Status.HTTP_403),
        ("HTTP Error 429: Too Many Requests", Status.HTTP_429),
        ("HTTP Error 418: I'm a teapot", Status.HTTP_4XX),
        ("HTTP Error 503: Service Unavailable", Status.HTTP_5XX),
        ("HTTP Error 302: The HTTP server returned a redirect error that would …", Status.TOO_MANY_REDIRECTS),
        ("HTTP Error 302: Found - Redirection to url 'file:///etc/passwd' is not allowed", Status.BAD_SCHEME),
        ("<urlopen error unknown url type: gopher>", Status.BAD_SCHEME),
        ("unknown url type: ''", Status.BAD_URL),
        ("URL can't contain control characters. '/timed out' (found at least ' ')", Status.BAD_URL),
        ("'ascii' codec can't encode character '\\xe4' in position 5: ordinal not in range(128)", Status.BAD_URL),
        ("encoding with 'idna' codec failed (UnicodeError: label empty or too long)", Status.BAD_URL),
        ("<urlopen error no host given>", Status.BAD_URL),
        ("<urlopen error [Errno -2] Name or service not known>", Status.DNS_UNKNOWN),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", Status.DNS_TEMPORARY),
        ("<urlopen error timed out>", Status.TIMEOUT),
        ("<urlopen error [SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)>", Status.TLS),
        ("IncompleteRead(500 bytes read, 99500 more expected)", Status.SHORT_BODY),
        ("Remote end closed connection without response", Status.CONNECTION),
        ("Use of image disallowed by X-Robots-Tag directive", Status.OPTED_OUT),
    ],
)
def test_img2dataset_s_words_have_statuses(message: str, status: Status) -> None:
    assert status_from_message(message) is status


def test_what_failed_when_it_was_decoded_is_no_matter_of_the_network() -> None:
    statuses = {"Image decoding error": Status.NOT_AN_IMAGE, "image too small": Status.TOO_SMALL}
    statuses["OpenCV(4.14.0) /io/loadsave.cpp:1310: error: (-215:Assertion failed) !buf.empty() in …"] = Status.EMPTY
    assert {words: status_from_message(words, resized=True) for words in statuses} == statuses


SCRIPT = """
from pathlib import Path
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.datasets.webdataset import WebdatasetConfig, ingest_webdataset
ingest_webdataset(Collection(Path({root!r})), WebdatasetConfig(path={folder!r}))
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_undisturbed_tables(tmp_path: Path, crash: Any) -> None:
    for shard in range(3):
        by_img2dataset(tmp_path / "cars", shard, failed=(2,))
    undisturbed, killed = Collection(tmp_path / "undisturbed"), Collection(tmp_path / "killed")
    ingest_webdataset(undisturbed, WebdatasetConfig(path=tmp_path / "cars"))
    script, kills = SCRIPT.format(root=str(killed.root), folder=str(tmp_path / "cars")), 0
    for at in (12, 25, 40):
        kills += crash.run(script, at=at)
    assert kills >= 2
    assert not crash.run(script, at=10**6)
    assert killed.stamps(Table.RECORDS) == undisturbed.stamps(Table.RECORDS)
    assert sorted(p.name for p in killed.root.rglob("*.*")) == sorted(p.name for p in undisturbed.root.rglob("*.*"))


SIDECARS: list[tuple[dict[str, bytes], str | None]] = [
    ({"txt": b"good\n", "json": b'{"caption": null}'}, "good"),
    ({"txt": b"good", "json": b'{"caption": "other"}'}, "good"),
    ({"txt": b" \n", "json": b'{"caption": "from json"}'}, "from json"),
    ({"txt": b"", "json": b"[" * 100_000}, ""),
    ({"txt": "\ufeffcafé".encode()}, "café"),
    ({"txt": "café".encode("latin-1")}, "café"),
    ({"txt": "café".encode("utf-16")}, "café"),
    ({"caption": b"from caption"}, "from caption"),
    ({"json": b'{"caption": NaN, "text": "from text"}'}, "from text"),
    ({"json": b'{"caption": ["", "first", "second"]}'}, "first"),
    ({"json": b'{"caption": 7, "original_width": 100000000000000, "original_height": true}'}, None),
    ({"json": b'{"caption": {"en": "a"}}'}, None),
    ({"json": b'{"TEXT": "in capitals", "Caption": "not this"}'}, "in capitals"),
    ({"text": b"as webdataset names it"}, "as webdataset names it"),
    ({"transcript": b" ", "jsn": b'{"text": "the other name"}'}, "the other name"),
    ({"txt": b"\xe2\x80\x8b", "json": b'{"text": "behind what has no width"}'}, "behind what has no width"),
    ({"json": b'{"caption": "lone \\ud800", "url": NaN}'}, "lone \ufffd"),
]


@pytest.mark.parametrize(("sidecars", "text"), SIDECARS)
def test_of_txt_and_json_the_text_counts_first_and_null_erases_nothing(
    folder: Path, tmp_path: Path, sidecars: dict[str, bytes], text: str | None
) -> None:
    members = {"a.jpg": encode_image(1), **{f"a.{suffix}": data for suffix, data in sidecars.items()}}
    tar(folder / "0.tar", members)
    collection = Collection(tmp_path / "c")
    ingest_webdataset(collection, WebdatasetConfig(path=folder))
    (row,) = rows_of(collection)
    assert (row["status"], row["text"]) == (Status.OK, text)
    assert (row["text_kind"] == CaptionKind.NONE) == (not text)
    (converted,) = FORMATS["webdataset"].read(folder, lambda kind, where: None)
    assert (converted.caption or None) == (text or None)
    (images,) = read_training_folder(folder / "0.tar")
    assert images.images[0].caption == (text or "a")


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        (
            {"json": b'{"caption": {"en": "a"}}'},
            "holds the fields en; name one of them, such as caption.en as caption_",
        ),
        ({"json": b'{"caption": "a",}'}, r"its JSON can't be read \(line 1"),
        ({"txt.gz": b"\x1f\x8b"}, r"beside it lies \.txt\.gz, which is not read"),
        ({"cls": b"7", "depth.npy": b"\x93NUMPY", "json": b"{}"}, None),
    ],
)
def test_a_caption_of_a_shard_that_may_be_there_and_is_not_read_is_told(
    folder: Path, collection: Collection, caplog: pytest.LogCaptureFixture, members: dict[str, bytes], sentence: str
) -> None:
    tar(folder / "0.tar", {"a.jpg": encode_image(1), **{f"a.{name}": data for name, data in members.items()}})
    ingest_webdataset(collection, WebdatasetConfig(path=folder))
    assert rows_of(collection)[0]["text"] is None
    assert re.search(f"1 images have no caption; of a, .*{sentence}", caplog.text) if sentence else not caplog.text


def test_a_field_of_a_shard_s_captions_may_be_named(folder: Path, collection: Collection) -> None:
    tar(folder / "0.tar", {"a.jpg": encode_image(1), "a.json": b'{"caption": {"en": "a", "de": "b"}}'})
    ingest_webdataset(collection, WebdatasetConfig(path=folder, caption_column="caption.de"))
    assert [row["text"] for row in rows_of(collection)] == ["b"]


def test_a_blank_in_the_named_column_is_an_empty_caption(folder: Path, collection: Collection) -> None:
    tar(folder / "0.tar", {"a.jpg": encode_image(1), "a.json": b'{"title": " "}'})
    ingest_webdataset(collection, WebdatasetConfig(path=folder, caption_column="title", keep_empty=True))
    assert [(row["text"], row["text_kind"]) for row in rows_of(collection)] == [("", "alt")]


def test_names_with_dots_are_images_of_their_own(folder: Path, tmp_path: Path) -> None:
    members = {
        "photo v1.2.jpg": encode_image(1),
        "photo v1.2.txt": b"the second",
        "photo v1.3.jpg": encode_image(2),
        "photo v1.3.txt": b"the third",
        "plain.jpg": encode_image(3),
        "plain.seg.png": encode_image(4),
        "plain.txt": b"plain",
    }
    tar(folder / "0.tar", members)
    collection = Collection(tmp_path / "c")
    ingest_webdataset(collection, WebdatasetConfig(path=folder))
    assert [(row["status"], row["text"]) for row in rows_of(collection)] == [
        ("ok", "the second"),
        ("ok", "the third"),
        ("ok", "plain"),
    ]


def test_a_size_below_zero_costs_the_rest_of_its_shard_alone(tmp_path: Path, collection: Collection) -> None:
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name, headers in (("a.png", {}), ("b.png", {"size": "-5"})):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 5, headers
            archive.addfile(member, io.BytesIO(b"bytes"))
    rows = ingest_webdataset(collection, WebdatasetConfig(path=tmp_path / "shards"))
    assert rows.dropped["not_an_image"] == 1 and rows.kept == 0


def test_shards_that_are_not_read_are_told(
    tmp_path: Path, collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "shards"
    for name in ("train/0.tar", "0.tar.gz", "1.tgz"):
        tar(folder / name, {"a.jpg": encode_image(0)})
    sentence = (
        r"Compressed shards are not read: .*0\.tar\.gz and 1 more; unpack them\. Shards in folders below are not read"
    )
    with pytest.raises(UserError, match=sentence):
        ingest_webdataset(collection, WebdatasetConfig(path=folder))
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "00000.tfrecord").touch()
    with pytest.raises(UserError, match=r"TFRecords are not read.*write webdataset"):
        ingest_webdataset(collection, WebdatasetConfig(path=tmp_path / "records"))
    tar(folder / "2.TAR", {"a.jpg": encode_image(0)})
    assert ingest_webdataset(collection, WebdatasetConfig(path=folder)).kept == 1
    assert "Compressed shards are not read" in caplog.text and "name their folder" in caplog.text


def test_a_shard_that_the_system_does_not_let_us_read_is_no_broken_one(tmp_path: Path, collection: Collection) -> None:
    (tmp_path / "0.tar").symlink_to("/proc/self/mem")  # reading it is an error of input and output
    with pytest.raises(UserError, match=r"0\.tar can't be read"):
        ingest_webdataset(collection, WebdatasetConfig(path=tmp_path))
    assert collection.parts(Table.RECORDS) == []


def upload(folder: Path, s3: type[S3]) -> WebdatasetConfig:
    s3.objects |= {f"{folder.name}/{file.name}": file.read_bytes() for file in folder.iterdir()}
    return WebdatasetConfig(path=Path(f"s3://bucket/{folder.name}"))


def test_shards_in_a_store_come_in_as_those_of_a_folder(
    folder: Path, collection: Collection, s3: type[S3], tmp_path: Path
) -> None:
    by_img2dataset(folder, 0, failed=(1,))
    by_img2dataset(folder, 7)
    tar(folder / "00007.tar", {"000070000.jpg": encode_image(3)[:-100], "000070001.jpg": encode_image(1)})
    ingest_webdataset(collection, WebdatasetConfig(path=folder))
    remote, config = Collection(tmp_path / "remote"), upload(folder, s3)
    summary = ingest_webdataset(remote, config)
    assert (summary.kept, summary.dropped) == (4, {"http_404": 1, "missing_file": 2, "truncated": 1})
    here, there = rows_of(collection), rows_of(remote)
    assert [row | {"path": None} for row in there] == [row | {"path": None} for row in here]
    assert there[0]["path"] == "s3://bucket/cars/00000.tar/000000000.jpg"
    for row in there:
        if row["image"]:
            assert (remote.root / row["image"]).read_bytes() == (collection.root / row["image"]).read_bytes()
    assert sorted(s3.got) == sorted(name for name in s3.objects if name.endswith((".tar", ".parquet")))


def test_a_shard_that_changed_in_its_store_is_made_again(folder: Path, collection: Collection, s3: type[S3]) -> None:
    by_img2dataset(folder, 0)
    by_img2dataset(folder, 1)
    config = upload(folder, s3)
    ingest_webdataset(collection, config)
    before = recipes(collection, config)
    assert before == {part: collection.recipe(Table.RECORDS, part) for part in ("00000", "00001")}
    s3.got = []
    ingest_webdataset(collection, config)
    assert s3.got == [], "nothing is read again"
    by_img2dataset(folder, 1, failed=(2,))
    upload(folder, s3)
    after = recipes(collection, config)
    assert after["00000"] == before["00000"] and after["00001"] != before["00001"]
    assert ingest_webdataset(collection, config).dropped == {"http_404": 1}


def test_a_store_without_shards_is_the_users_error(folder: Path, collection: Collection, s3: type[S3]) -> None:
    with pytest.raises(UserError, match="s3://bucket/cars is not a shard and holds none"):
        recipes(collection, WebdatasetConfig(path=Path("s3://bucket/cars")))
    by_img2dataset(folder, 0)
    by_img2dataset(folder, 1)
    (folder / "00001_stats.json").unlink()
    with pytest.raises(UserError, match=r"s3://bucket/cars/00001\.tar is not finished"):
        recipes(collection, upload(folder, s3))
