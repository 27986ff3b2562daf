"""Every convention is read as the tools that made it write it, and gives back whatever was put into it."""

import json
import os
import tarfile
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.caption.convert import convert
from dreamloom.caption.formats import FORMATS, SOURCES, FormatName
from dreamloom.caption.formats.rows import Row, UniqueNames, oddities
from dreamloom.caption.formats.target import Log, Target
from dreamloom.caption.sidecar import read_caption
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder
from dreamloom.scrape.datasets.webdataset import WebdatasetConfig, ingest_webdataset

captions = (
    st.text(max_size=300) | st.text("a_.\r\n\ufeff\x00\x85 ,:{\"'", max_size=9) | st.sampled_from(["a cat", "CON"])
)
folders = st.sampled_from(["", "john", "John", "a b/c"])


def rows_of(format_name: str, folder: Path) -> tuple[dict[str, str | None], Log]:
    """Name → caption, and what was noted."""
    log = Log()
    return {row.name: row.caption for row in SOURCES[format_name](folder, log.note)}, log


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_the_command_line_names_all_formats() -> None:
    assert tuple(FORMATS) == get_args(FormatName)
    assert tuple(SOURCES) == (*FORMATS, "collection")


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=15)
@given(
    wanted=st.lists(st.tuples(folders, captions, st.sampled_from([".jpg", ".gif", ".jpeg"])), min_size=1, max_size=6)
)
def test_any_captions_are_read_again_as_they_were_written(
    name: str, wanted: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("formats")
    rows = []
    for number, (folder, caption, extension) in enumerate(wanted):
        file = place / f"{number}.bin"
        file.write_bytes(str(number).encode())
        rows.append(Row(f"{folder}/x{number % 2}{extension}".lstrip("/"), caption, str(file)))
    (place / "new").mkdir()
    log = Log()
    assert list(FORMATS[name].write(rows, Target(place / "new", log)))[-1] == len(rows)
    assert {what for what, _ in log.counts} - {"odd"} == {"made"}
    found = {row.read(): row.caption for row in FORMATS[name].read(place / "new", Log().note)}
    assert found == {str(number).encode(): caption for number, (_, caption, _) in enumerate(wanted)}


@pytest.mark.parametrize("name", ["kohya", "imagefolder"])
def test_names_are_the_same_however_their_accents_are_written(name: str, tmp_path: Path) -> None:
    composed, apart = "caf\u00e9.jpg", "cafe\u0301.jpg"
    put(tmp_path, apart)
    (tmp_path / "meta.json").write_text(json.dumps({composed[:-4]: {"caption": "a cup"}}))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": composed, "text": "a cup"}))
    found, log = rows_of(name, tmp_path)
    assert (found, log.counts) == ({apart: "a cup"}, {})


@pytest.mark.parametrize("name", ["kohya", "kohya-relative"])
def test_kohya_s_trainer_finds_each_image_by_its_key(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    for image, caption in [("john/a man_1.png", "one line"), ("a man_1.png", "two\nlines"), ("x.PNG", "")]:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / image, format="PNG")
        (folder / image).with_suffix(".txt").write_text(caption)
    monkeypatch.chdir(tmp_path)
    log = convert(folder, "txt", name, Path("out"), tmp_path / "log").log
    entries = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert all(Path(key).is_absolute() == (name == "kohya") for key in entries)
    found = {os.path.join(tmp_path / "out", key): entry["caption"] for key, entry in entries.items()}  # as it does
    assert all(Path(path).is_file() for path in found)
    assert sorted(found.values()) == ["", "one line", "two\nlines"]
    assert log.counts["odd", "caption of several lines, of which kohya's trainer reads the first"] == 1
    assert sorted(row.caption or "" for row in FORMATS[name].read(tmp_path / "out", log.note)) == sorted(found.values())


def test_kohya_s_json_is_read_with_tags_and_paths(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    put(folder, "a.jpg", "b.png", "c.webp", "d.jpg", "e.jpg", "sub/f.jpg", "g.jpg")
    entries = {
        "a": {"caption": "a man", "tags": "outdoors, smiling", "train_resolution": [512, 512]},
        "b": {"tags": "1girl, solo"},
        str(folder / "c.webp"): {"caption": "by its path"},
        "C:\\train\\d.jpg": {"caption": "by a path of another machine"},
        "e": {"caption": "", "tags": ""},
        "sub/f": {"caption": "below"},
        "h": {"caption": "not there"},
        "g": "not an entry",
    }
    (tmp_path / "meta_cap.json").write_text(json.dumps({"a": {"caption": "of an earlier step"}}))
    (tmp_path / "meta_clean.json").write_text(json.dumps(entries))
    found, log = rows_of("kohya", folder)
    assert found == {
        "a.jpg": "a man, outdoors, smiling",
        "b.png": "1girl, solo",
        "c.webp": "by its path",
        "d.jpg": "by a path of another machine",
        "e.jpg": "",
        "sub/f.jpg": "below",
        "g.jpg": None,
    }
    assert log.counts == {("odd", "entry without an image"): 1}


def test_imagefolder_s_table_is_read_the_nearest_first(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "train/b.jpg", "train/c.jpg", "d.jpg")
    lines = [
        {"file_name": "a.jpg", "text": "a cat\n"},
        {"file_name": "train/b.jpg", "text": "from above"},
        [],
        {"x": 1},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + "\nnot json\n"
    (tmp_path / "metadata.jsonl").write_text("\ufeff" + text)
    lines = [
        {"file_name": "b.jpg", "caption": "nearest"},
        {"file_name": "c.jpg", "prompt": "c"},
        {"file_name": "e.jpg"},
    ]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    found, log = rows_of("imagefolder", tmp_path)
    assert found == {"a.jpg": "a cat\n", "train/b.jpg": "nearest", "train/c.jpg": "c", "d.jpg": None}
    assert log.counts == {("odd", "line that can't be read"): 4}


def test_shards_are_what_webdataset_reads(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    put(tmp_path / "in", "a.jpg", "john/a b.c.JPEG")
    rows = [
        Row("a.jpg", "a cat", str(tmp_path / "in/a.jpg")),
        Row("john/a b.c.JPEG", "", f"{tmp_path}/in/john/a b.c.JPEG"),
    ]
    (tmp_path / "out").mkdir()
    list(FORMATS["webdataset"].write(rows, Target(tmp_path / "out", Log())))
    samples = list(webdataset.WebDataset(str(tmp_path / "out" / "00000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["000000000", "000000001"]
    assert [sample["txt"] for sample in samples] == [b"a cat", b""]
    assert [sample.get("jpg", sample.get("jpeg")) for sample in samples] == [b"a.jpg", b"john/a b.c.JPEG"]
    assert rows_of("webdataset", tmp_path / "out")[0] == {"a.jpg": "a cat", "john/a b.c.JPEG": ""}


def test_shards_of_others_are_read_and_lead_nowhere_else(tmp_path: Path) -> None:
    members = {
        "0.jpg": b"0", "0.txt": "caf\xe9".encode("latin-1"), "0.json": b'{"file_name": "../../etc/x.jpg"}',
        "1.png": b"1", "1.json": b'{"caption": "from json"}', "../2.jpg": b"2", "3.txt": b"no picture",
        "4.jpg": b"4", "4.json": b"broken", "4.cls": b"7",
    }  # fmt: skip
    for name, data in members.items():
        (tmp_path / "member").write_bytes(data)
        with tarfile.open(tmp_path / "x.tar", "a") as archive:
            archive.add(tmp_path / "member", name)
    found, log = rows_of("webdataset", tmp_path)
    assert found == {"etc/x.jpg": "café", "1.png": "from json", "2.jpg": None, "4.jpg": None}
    assert log.counts == {("odd", "sample without an image"): 1, ("odd", "sidecar in Windows-1252"): 1}


def test_of_a_broken_shard_what_is_whole_is_read_and_the_rest_is_told(tmp_path: Path) -> None:
    put(tmp_path / "pictures", *(f"{number}.jpg" for number in range(4)))
    convert(tmp_path / "pictures", "filename", "webdataset", tmp_path / "shards", tmp_path / "log")
    shard = (tmp_path / "shards" / "00000.tar").read_bytes()
    second = shard.index(b"000000001.jpg")
    for name, data in {
        "00001.tar": shard[: second + 512 + 2],  # within an image
        "00002.tar": shard[:second] + b"\xff" * 512 + shard[second + 512 :],
        "00003.tar": b"",
        "00004.tar": b"junk",
    }.items():
        (tmp_path / "shards" / name).write_bytes(data)
    read = list(SOURCES["webdataset"](tmp_path / "shards", (log := Log()).note))
    assert [row.read() for row in read] == [b"0.jpg", b"1.jpg", b"2.jpg", b"3.jpg", b"0.jpg", b"0.jpg"]
    assert log.counts == {("odd", "shard that is broken"): 4}
    (tmp_path / "shards" / "00000.parquet").write_bytes(b"no table")
    assert len(list(SOURCES["webdataset"](tmp_path / "shards", log.note))) == 6


def test_of_a_collection_a_broken_part_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "pictures" / f"a cat_{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (number, 0, 0)).save(path)
    collection = Collection(tmp_path / "cats")
    ingest_folder(collection, FolderConfig(path=tmp_path / "pictures", part_rows=1), read_caption)
    part = collection.part_path(Table.RECORDS, "00001")
    whole = part.read_bytes()
    part.write_bytes(whole[:-100])
    found, log = rows_of("collection", collection.root)
    assert list(found.values()) == ["a cat"] * 3
    assert log.counts == {("odd", "part that can't be read"): 1}
    part.write_bytes(whole)
    keys = collection.read(Table.RECORDS, "00002", ["key"])["key"].to_pylist()
    rows = [{"key": key, "caption": "a dog", "kind": "human"} for key in keys]
    collection.write(Table.CAPTIONS, "00002", rows, recipe="r", config=StageConfig(), summary=Summary(rows=1, kept=1))
    found, log = rows_of("collection", collection.root)  # while the others are being captioned
    assert list(found.values()) == ["a dog"]
    assert log.counts == {("odd", "part without captions yet"): 3}


@pytest.mark.parametrize(
    ("name", "mend"),
    [("kohya", "put kohya's JSON there"), ("imagefolder", "metadata.jsonl"), ("webdataset", "holds none")],
)
def test_a_folder_of_another_kind_is_a_sentence(tmp_path: Path, name: str, mend: str) -> None:
    put(tmp_path, "a.jpg")
    with pytest.raises(UserError, match=mend):
        rows_of(name, tmp_path)


def test_sidecars_of_one_kind_alone_are_read(tmp_path: Path) -> None:
    put(tmp_path, "a b.jpg", "c d.jpg", "e f.jpg")
    (tmp_path / "a b.txt").write_text("from txt")
    (tmp_path / "c d.caption").write_text("from caption")
    (tmp_path / "e f.yml").write_text("main_prompt: from yaml\ntags: [x]\nflip_p: 0.5\n")
    everything = {"a b.jpg": "from txt", "c d.jpg": "from caption", "e f.jpg": "from yaml, x"}
    found, log = rows_of("filename", tmp_path)
    assert found == everything
    assert log.counts == {("odd", "settings in a YAML, which stay behind"): 1}
    for name, image in [("txt", "a b.jpg"), ("caption", "c d.jpg"), ("yaml", "e f.jpg")]:
        assert rows_of(name, tmp_path)[0] == {**dict.fromkeys(everything), image: everything[image]}


def test_a_collection_goes_into_shards_and_comes_in_again(tmp_path: Path) -> None:
    for number, name in enumerate(["a red car", "IMG_1", "a boat"]):
        (tmp_path / "mine").mkdir(exist_ok=True)
        Image.new("RGB", (16, 8 + number), (number, 0, 0)).save(tmp_path / "mine" / f"{name}.png")
    (tmp_path / "mine" / "broken.png").write_bytes(b"x")
    collection = Collection(tmp_path / "first")
    ingest_folder(collection, FolderConfig(path=tmp_path / "mine", licence="CC BY 4.0", author="me"), read_caption)
    assert set(rows_of("collection", collection.root)[0].values()) == {"a red car", None, "a boat"}

    keys = collection.read(Table.RECORDS, columns=["key", "text"]).to_pylist()
    rows = [{"key": row["key"], "caption": f"a photo of {row['text']}", "kind": "human"} for row in keys if row["text"]]
    summary = Summary(rows=2, kept=2)
    collection.write(Table.CAPTIONS, "00000", rows, recipe="", config=FolderConfig(path=tmp_path), summary=summary)
    convert(collection.root, "collection", "webdataset", tmp_path / "shards", tmp_path / "log")
    again = Collection(tmp_path / "again")
    ingest_webdataset(again, WebdatasetConfig(path=tmp_path / "shards", caption_kind="human"))
    records = again.read(Table.RECORDS).to_pylist()
    assert {row["text"] for row in records} == {"a photo of a red car", "a photo of a boat"}
    assert {(row["status"], row["licence"], row["author"]) for row in records} == {("ok", "CC BY 4.0", "me")}
    before = {row["sha256"] for row in collection.read(Table.RECORDS).to_pylist() if row["text"]}
    assert {row["sha256"] for row in records} == before


@given(st.lists(st.text("aA/._\\\0é\udc80 ", max_size=6).map(lambda stem: f"{stem}.jpg") | st.text(), max_size=30))
def test_images_of_a_new_folder_share_no_stem_and_lie_in_it(wanted: list[str]) -> None:
    names = UniqueNames()
    given = [names.assign(name) for name in wanted]
    stems = {os.path.splitext(name)[0].casefold() for name in given}
    assert len(stems) == len(given)
    for name in given:
        name.encode()
        assert all(part.strip(". ") and not part.startswith(".") for part in name.split("/"))


@pytest.mark.parametrize(
    ("caption", "kinds"),
    [
        ("a man and/or a dog", []),
        ("café\nau lait", []),
        (" ", ["empty caption"]),
        ("/etc/passwd", ["caption that is a path"]),
        ("C:\\Users\\me\\x.png", ["caption that is a path"]),
        ("../pictures/x.jpg", ["caption that is a path"]),
        ("train/x.jpg", ["caption that is a path"]),
        ("a\x00b", ["control characters in a caption"]),
        ("\x85", ["empty caption", "control characters in a caption"]),
    ],
)
def test_odd_captions_are_known(caption: str, kinds: list[str]) -> None:
    assert list(oddities(caption)) == kinds
