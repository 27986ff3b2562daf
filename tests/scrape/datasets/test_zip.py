"""Zip archives are read in place: captions of sidecars, tables and names; what an archive says of itself is checked."""

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.images.pixels import ImageError
from dreamloom.caption.sidecar import read_caption
from dreamloom.scrape.collection import Collection, Row, Table
from dreamloom.scrape.datasets import zip_members
from dreamloom.scrape.datasets.zip import ZipConfig, ingest_zip, measure


def png(number: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def pack(file: Path, members: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def rows_of(tmp_path: Path, **config: Any) -> dict[str, Row]:
    collection = Collection(tmp_path / "collection")
    ingest_zip(collection, ZipConfig(path=tmp_path / "mine.zip", **config), read_caption)
    rows = collection.read(Table.RECORDS).to_pylist()
    return {row["path"].partition("mine.zip/")[2]: row for row in rows}


def test_captions_are_those_of_sidecars_then_tables_then_names(tmp_path: Path) -> None:
    lines = [{"file_name": name, "text": f"row {name}", "license": "CC0"} for name in ("1.png", "2.png", "sub/3.png")]
    members: dict[str, bytes | str] = {f"data/{name}": png(n) for n, name in enumerate(("1.png", "2.png", "sub/3.png"))}
    members |= {"data/metadata.jsonl": "\n".join(map(json.dumps, lines)), "data/1.txt": "by hand"}
    members |= {"data/sub/3.yaml": "tags: [red, big]", "a man, standing_(2).png": png(5), "IMG_1.png": png(6)}
    members |= {"__MACOSX/data/._1.png": b"x", ".hidden.png": b"x", "notes.md": "mine", "broken.png": png(7)[:90]}
    pack(tmp_path / "mine.zip", members)
    before = (tmp_path / "mine.zip").read_bytes()
    rows = rows_of(tmp_path)
    assert {name: (row["status"], row["text"]) for name, row in rows.items()} == {
        "data/1.png": ("ok", "by hand"),
        "data/2.png": ("ok", "row 2.png"),
        "data/sub/3.png": ("ok", "3, red, big"),
        "a man, standing_(2).png": ("ok", "a man, standing"),
        "IMG_1.png": ("ok", None),
        "broken.png": ("truncated", None),
    }
    assert rows["data/2.png"]["licence"] == "CC0"
    assert (tmp_path / "mine.zip").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["collection", "mine.zip"]  # nothing is unpacked
    assert all(row["text"] is None for row in rows_of(tmp_path, caption_kind="none").values())


def test_parts_run_through_archives_and_are_made_once(tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    for first, archive in ((0, "a.zip"), (10, "b.zip")):
        pack(tmp_path / "zips" / archive, {f"{n}.png": png(first + n) for n in range(3)})
    collection, config = Collection(tmp_path / "c"), ZipConfig(path=tmp_path / "zips", part_rows=2, limit=5)
    assert (measure(config).count, measure(config).unit) == (5, "images")
    summary = ingest_zip(collection, config, read_caption)
    assert (summary.rows, summary.kept, summary.parts_done) == (5, 5, 3)
    again = ingest_zip(collection, config, read_caption)
    assert (again.parts_done, again.parts_before) == (0, 3)
    pack(tmp_path / "zips" / "b.zip", {f"{n}.png": png(n + 50) for n in range(3)})
    assert ingest_zip(collection, config, read_caption).parts_done == 2


def test_names_are_read_as_their_program_wrote_them_and_lead_nowhere(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {"a caf__ at noon.png": png(1), "in\\side.png": png(2)}
    members |= {"../../out.png": png(3), "/etc/out.png": png(4), "C:/out.png": png(5)}
    file = pack(tmp_path / "mine.zip", members)
    file.write_bytes(file.read_bytes().replace(b"caf__", "café".encode()))  # UTF-8, and no mark that says so
    collection = Collection(tmp_path / "c")
    summary = ingest_zip(collection, ZipConfig(path=file), read_caption)
    rows = collection.read(Table.RECORDS).to_pylist()
    assert sorted(row["path"].partition("mine.zip/")[2] for row in rows) == ["a café at noon.png", "in/side.png"]
    assert summary.left_out == {"outside": 3}
    assert not list(tmp_path.rglob("out.png"))


def test_a_hostile_member_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_members.ZipArchive.read, "__defaults__", (2_000,))  # what 512 MiB are
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    file = pack(tmp_path / "mine.zip", {"bomb.png": b"\0" * 10_000, "good.png": png(1), "lies.png": png(2)})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("metadata.jsonl", "[" * 100_000)
        archive.writestr("good.txt", b"\0" * 1_500_000)
    data = bytearray(file.read_bytes())
    place = data.rindex(b"lies.png") - 46
    data[place + 16] ^= 0xFF  # its checksum
    file.write_bytes(data)
    statuses = {name: row["status"] for name, row in rows_of(tmp_path).items()}
    assert statuses == {"bomb.png": "too_many_pixels", "good.png": "ok", "lies.png": "truncated"}


def test_encrypted_members_are_told(tmp_path: Path) -> None:
    file = pack(tmp_path / "mine.zip", {"a.png": png(1)})
    data = bytearray(file.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(data)
    assert rows_of(tmp_path)["a.png"]["detail"] == "it is encrypted"


def test_archives_that_overlap_or_are_none_are_refused(tmp_path: Path) -> None:
    file = pack(tmp_path / "mine.zip", {"a.png": png(1)})
    with zipfile.ZipFile(file, "a") as archive:
        for number in range(50):
            twin = zipfile.ZipInfo(f"{number}.png")
            for name in ("header_offset", "compress_size", "file_size", "CRC", "compress_type"):
                setattr(twin, name, getattr(archive.filelist[0], name))
            archive.filelist.append(twin)
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="so they overlap"):
        rows_of(tmp_path)
    file.write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(UserError, match="can't be read as zip"):
        rows_of(tmp_path)
    pack(file, {"notes.txt": "x"})
    with pytest.raises(UserError, match="holds no image"):
        rows_of(tmp_path)
    with pytest.raises(UserError, match="no zip archive and holds none"):
        measure(ZipConfig(path=tmp_path / "collection"))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_whatever_became_of_its_bytes_a_member_costs_itself(tmp_path: Path, method: int) -> None:
    whole = pack(tmp_path / "mine.zip", {"a.png": png(1), "b.png": png(2)}, method).read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(30, len(whole) // 2, 40):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        (tmp_path / "mine.zip").write_bytes(broken)
        opened = zip_members.open_zip(tmp_path / "mine.zip")
        for name in opened.images:
            with contextlib.suppress(ImageError):
                opened.read(name)


def test_a_member_without_a_name_is_none(tmp_path: Path) -> None:
    file = pack(tmp_path / "mine.zip", {"x": png(0), "a.png": png(1)})
    data = bytearray(file.read_bytes())
    entry = data.index(b"PK\1\2")
    data[entry + 28 : entry + 32] = b"\0\0\1\0"  # the name's byte becomes an extra field's
    file.write_bytes(data)
    assert list(rows_of(tmp_path)) == ["a.png"]
