"""Images of a folder come in whole and upright, bad ones become rows, and the originals stay unchanged."""

import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.files.image_types import UNSUPPORTED_EXTENSIONS
from dreamloom.base.images.pixels import MAX_PIXELS, ImageError, decode
from dreamloom.base.stage import Summary
from dreamloom.caption.sidecar import read_caption
from dreamloom.scrape.collection import Collection, Status, Table
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder, recipes
from dreamloom.scrape.datasets.image_files import read_file, size_of_folder
from tests.powercut import PowerCut


def run(collection: Collection, folder: Path, **config: Any) -> Summary:
    return ingest_folder(collection, FolderConfig(path=folder, **config), read_caption)


def rows_of(collection: Collection) -> dict[str, dict[str, Any]]:
    """The records by file name."""
    return {Path(row["path"]).name: row for row in collection.read(Table.RECORDS).to_pylist()}


def draw(path: Path, number: int = 0, size: tuple[int, int] = (24, 16), **save: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **save)
    return path


def exif(orientation: int) -> bytes:
    values = Image.Exif()
    values[0x0112] = orientation
    return values.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path / "work" / "mine")


def test_a_plain_image_keeps_its_bytes_and_another_is_stored_as_it_is_meant(
    folder: Path, collection: Collection
) -> None:
    plain = draw(folder / "plain.jpg")
    turned = draw(folder / "turned.JPG", exif=exif(6))
    clear = folder / "clear.png"
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(clear)
    draw(folder / "old.bmp")
    summary = run(collection, folder)
    rows = rows_of(collection)
    assert (summary.rows, summary.kept, summary.dropped) == (4, 4, {})
    kept = collection.root / rows["plain.jpg"]["image"]
    assert kept.read_bytes() == plain.read_bytes() and not kept.samefile(plain)
    stored = collection.root / rows["turned.JPG"]["image"]
    assert not stored.samefile(turned)
    assert (rows["turned.JPG"]["width"], rows["turned.JPG"]["height"]) == (16, 24) == Image.open(stored).size
    assert Image.open(collection.root / rows["clear.png"]["image"]).getpixel((0, 0)) == (255, 255, 255)
    assert rows["old.bmp"]["image"].endswith(".png")


def test_a_image_named_as_another_format_gets_its_own_ending(folder: Path, collection: Collection) -> None:
    draw(folder / "really a png.jpg", format="PNG")
    run(collection, folder)
    assert rows_of(collection)["really a png.jpg"]["image"].endswith(".png")


def test_bad_files_become_rows_that_say_why(folder: Path, collection: Collection) -> None:
    whole = draw(folder / "whole.jpg", size=(64, 64)).read_bytes()
    for name, data in {
        "cut.jpg": whole[:-200],
        "cut.png": draw(folder / "x.png", size=(64, 64)).read_bytes()[:-300],
        "empty.jpg": b"",
        "text.png": b"<html>not found</html>",
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    }.items():
        (folder / name).write_bytes(data)
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "caf\udce9.jpg").write_bytes(whole)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/null")  # /dev/zero would fill the memory, were it read
    summary = run(collection, folder)
    rows = rows_of(collection)
    assert {name: row["status"] for name, row in rows.items()} == {
        "café.jpg": Status.OK,  # a name that is not UTF-8
        "cut.jpg": Status.TRUNCATED,
        "cut.png": Status.TRUNCATED,
        "device.jpg": Status.MISSING_FILE,
        "empty.jpg": Status.EMPTY,
        "gone.jpg": Status.MISSING_FILE,
        "phone.heic": Status.UNSUPPORTED,
        "pipe.jpg": Status.MISSING_FILE,
        "text.png": Status.NOT_AN_IMAGE,
        "whole.jpg": Status.OK,
        "x.png": Status.OK,
    }
    assert rows["cut.jpg"]["image"] is None
    assert (summary.rows, summary.kept, summary.dropped["truncated"]) == (11, 3, 2)


def test_kinds_that_are_not_decoded_become_rows(folder: Path, collection: Collection) -> None:
    """The training folder lists the same files as problems: there is one table of extensions."""
    folder.mkdir()
    for extension in UNSUPPORTED_EXTENSIONS - {".svg", ".nef", ".dng"}:
        (folder / f"image{extension}").write_bytes(b"8BPS or any other bytes")
    (folder / "drawing.SVG").write_text("<svg/>")
    draw(folder / "raw.tif").rename(folder / "raw.nef")
    draw(folder / "raw.tif").rename(folder / "raw.DNG")
    draw(folder / "in fact.jpg").rename(folder / "in fact a JPEG.heic")
    (folder / "empty.jxl").touch()
    draw(folder / "beside.png")
    summary = run(collection, folder)
    by_status = defaultdict(set)
    for name, row in rows_of(collection).items():
        by_status[row["status"]].add(name)
    assert by_status[Status.OK] == {"in fact a JPEG.heic", "beside.png"}
    assert by_status[Status.EMPTY] == {"empty.jxl"}
    named = {f"image{extension}" for extension in UNSUPPORTED_EXTENSIONS - {".svg", ".nef", ".dng"}}
    assert by_status[Status.UNSUPPORTED] == named | {"raw.nef", "raw.DNG", "drawing.SVG"}
    assert summary.dropped == {"unsupported": len(UNSUPPORTED_EXTENSIONS), "empty": 1}


def test_every_format_of_the_field_is_decoded_or_has_a_row(folder: Path, collection: Collection) -> None:
    for name in ("a.jpe", "b.jp2", "c.tga", "d.ppm", "e.ico", "no extension", "img_0001.JPG~"):
        draw(
            folder / name, format={".jp2": "JPEG2000", ".tga": "TGA", ".ppm": "PPM", ".ico": "ICO"}.get(name[1:], "PNG")
        )
    (folder / "phone").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (folder / "raw.cr3").write_bytes(b"\0\0\0\x18ftypcrx ")
    for name in ("notes.md", "clip.mp4", "made.npz", "Makefile"):
        (folder / name).write_bytes(b"no image")
    run(collection, folder)
    by_name = {name: row["status"] for name, row in rows_of(collection).items()}
    unsupported = {name for name, status in by_name.items() if status == Status.UNSUPPORTED}
    assert (len(by_name), unsupported) == (9, {"phone", "raw.cr3"})
    assert {status for name, status in by_name.items() if name not in unsupported} == {Status.OK}


@pytest.mark.slow
def test_real_hostile_images_are_stored_as_they_decode(shared_data: Path, collection: Collection) -> None:
    hostile = shared_data / "hostile"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in hostile.rglob("*") if path.is_file()}
    run(collection, hostile)
    for row in collection.read(Table.RECORDS).to_pylist():
        source = Path(row["path"])
        try:
            expected = np.asarray(decode(source))
        except ImageError as error:
            assert row["status"] == error.reason
            continue
        stored = Image.open(collection.root / row["image"]).convert("RGB")
        assert row["status"] == Status.OK
        assert (row["height"], row["width"]) == expected.shape[:2] == (stored.height, stored.width)
        lossless = row["image"].endswith(".png") or (collection.root / row["image"]).read_bytes() == source.read_bytes()
        difference = np.abs(np.asarray(stored, dtype=int) - expected).mean()
        assert difference == 0 if lossless else difference < 3, source
    assert before == {path: (data, path.stat().st_mtime_ns) for path, (data, _) in before.items()}


def test_again_does_nothing_and_a_change_makes_only_its_part_again(folder: Path, collection: Collection) -> None:
    for number in range(6):
        draw(folder / f"{number}.png", number)
    assert run(collection, folder, part_rows=2).parts_done == 3
    again = run(collection, folder, part_rows=2)
    assert (again.parts_done, again.parts_before, again.kept) == (0, 3, 6)
    draw(folder / "4.png", 40)
    assert run(collection, folder, part_rows=2).parts_done == 1
    draw(folder / "6.png", 6)
    assert run(collection, folder, part_rows=2).parts_done == 1
    assert list(rows_of(collection)) == [f"{number}.png" for number in range(7)]


def test_images_that_went_away_leave_the_collection_but_not_the_disk(folder: Path, collection: Collection) -> None:
    paths = [draw(folder / f"{number}.png", number) for number in range(5)]
    run(collection, folder, part_rows=2)
    aside = [path.rename(folder.parent / path.name) for path in (paths[1], paths[3], paths[4])]
    run(collection, folder, part_rows=2)
    stored = sorted(path.name for path in (collection.root / "images").rglob("*.png"))
    assert stored == sorted(f"{key}.png" for key in collection.read(Table.RECORDS).column("key").to_pylist())
    assert len(stored) == 2
    assert all(path.exists() for path in aside)


def test_links_to_folders_are_followed_once_and_those_that_lead_out_if_asked(
    folder: Path, collection: Collection
) -> None:
    draw(folder / "b" / "a.png")
    for hidden in (".thumbnails/x.png", "b/._a.png", ".c.png"):
        draw(folder / hidden)
    (folder / "b" / "round").symlink_to(folder)
    draw(folder.parent / "elsewhere" / "z.png")
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder / "c").symlink_to(folder / "b")
    summary = run(collection, folder)
    assert (list(rows_of(collection)), summary.left_out["linked"]) == (["a.png"], 1)
    summary = run(collection, folder, follow_links=True)
    assert (list(rows_of(collection)), summary.left_out.get("linked")) == (["a.png", "z.png"], None)


def test_one_part_can_be_made_alone(folder: Path, collection: Collection) -> None:
    for number in range(5):
        draw(folder / f"{number}.png", number)
    config = FolderConfig(path=folder, part_rows=2)
    names = sorted(recipes(collection, config))
    assert names == ["00000", "00001", "00002"]
    summary = ingest_folder(collection, config, read_caption, parts=["00001"])
    assert (summary.rows, collection.parts(Table.RECORDS)) == (2, ["00001"])


def test_what_the_user_got_wrong_is_said_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    collection = Collection(folder / "work" / "mine")
    with pytest.raises(UserError, match="is not a folder"):
        run(Collection(tmp_path / "mine"), folder)
    folder.mkdir()
    with pytest.raises(UserError, match="its own output"):
        run(collection, folder)
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"contains no image \(1 \.txt\)"):
        run(Collection(tmp_path / "mine"), folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["images", "notes.txt"]


SCRIPT = """
from pathlib import Path
from dreamloom.caption.sidecar import read_caption
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder
ingest_folder(Collection(Path({root!r})), FolderConfig(path={folder!r}, part_rows=10), read_caption)
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_undisturbed_tables(
    folder: Path, tmp_path: Path, crash: Any
) -> None:
    for number in range(60):  # every third is turned, so that it is stored anew
        draw(folder / f"a red car_{number}.jpg", number, exif=exif(6 if number % 3 else 1))
    (folder / "a red car_7.jpg").write_bytes(b"")
    undisturbed, killed = Collection(tmp_path / "undisturbed"), Collection(tmp_path / "killed")
    assert not crash.run(SCRIPT.format(root=str(undisturbed.root), folder=str(folder)), at=10**6)
    script, kills = SCRIPT.format(root=str(killed.root), folder=str(folder)), 0
    for at in (2, 30, 61, 90, 97, 120, 151, 200):
        kills += crash.run(script, at=at)
        for part in killed.parts(Table.RECORDS):
            assert killed.read(Table.RECORDS, part).equals(undisturbed.read(Table.RECORDS, part))
    assert kills >= 6
    assert not crash.run(script, at=10**6)
    assert killed.stamps(Table.RECORDS) == undisturbed.stamps(Table.RECORDS)
    assert {p.relative_to(killed.root): p.read_bytes() for p in killed.root.rglob("*.jpg")} == {
        p.relative_to(undisturbed.root): p.read_bytes() for p in undisturbed.root.rglob("*.jpg")
    }
    assert not list(killed.root.rglob(".tmp-*"))


def test_a_power_cut_leaves_no_record_without_its_image(folder: Path, power: PowerCut, tmp_path: Path) -> None:
    """One image is copied, one stored anew."""
    for number in range(2):
        draw(folder / f"a red car_{number}.jpg", number, exif=exif(6 if number else 1))
    with power.watching():
        run(Collection(power.root / "mine"), folder)
    images = {path.name: path.read_bytes() for path in power.root.rglob("*.jpg")}
    for disk, ended in power.left_behind(tmp_path / "found"):
        found = Collection(disk / "mine")
        rows = found.read(Table.RECORDS).to_pylist()
        assert [row["status"] for row in rows] in ([], ["ok", "ok"])
        assert all((found.root / row["image"]).read_bytes() == images[Path(row["image"]).name] for row in rows)
        assert rows or not ended


def test_places_and_serial_numbers_are_not_stored_unless_asked(folder: Path, collection: Collection) -> None:
    values = Image.Exif()
    values.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.0)})
    values.get_ifd(0x8769)[0xA431] = "SN-123456"
    values[0x8298] = "Ann"
    original = draw(folder / "a.jpg", exif=values)
    draw(folder / "b.jpg")
    before = original.read_bytes()
    run(collection, folder, link=True)
    stored = collection.root / rows_of(collection)["a.jpg"]["image"]
    assert b"SN-123456" not in stored.read_bytes() and Image.open(stored).getexif()[0x8298] == "Ann"
    assert rows_of(collection)["a.jpg"]["sha256"] == hashlib.sha256(before).hexdigest()
    assert original.read_bytes() == before
    run(collection, folder, keep_exif=True)
    assert stored.read_bytes() == before


def test_refusals_in_an_image_are_recorded_and_counted(folder: Path, collection: Collection) -> None:
    draw(folder / "a.jpg", comment=b"DMI-PROHIBITED-AIMLTRAINING")
    draw(folder / "b.jpg")
    summary = run(collection, folder)
    assert rows_of(collection)["a.jpg"]["consent"] == "iptc: DMI-PROHIBITED-AIMLTRAINING"
    assert (rows_of(collection)["b.jpg"]["consent"], summary.marked) == (None, {"opted_out": 1})


def test_an_image_without_its_end_mark_is_taken_and_marked(folder: Path, collection: Collection) -> None:
    data = draw(folder / "whole.jpg").read_bytes()
    (folder / "endless.jpg").write_bytes(data[:-2])
    (folder / "cut.jpg").write_bytes(data[:-40])
    summary = run(collection, folder)
    row = rows_of(collection)["endless.jpg"]
    assert (row["status"], row["detail"]) == (Status.OK, "its end mark was missing")
    assert (collection.root / row["image"]).read_bytes() == data
    assert rows_of(collection)["cut.jpg"]["status"] == Status.TRUNCATED
    assert summary.marked == {"missing_end": 1}


@pytest.mark.slow
def test_a_photo_larger_than_what_is_decoded_is_stored_shrunk(folder: Path, collection: Collection) -> None:
    folder.mkdir()
    Image.new("L", (19_000, 10_000), 90).save(folder / "panorama.jpg")  # 190 Mpx, which Pillow does not even open
    run(collection, folder)
    row = rows_of(collection)["panorama.jpg"]
    assert (row["status"], row["original_width"], row["original_height"]) == (Status.OK, 19_000, 10_000)
    assert row["width"] * row["height"] <= MAX_PIXELS
    assert decode(collection.root / row["image"], at_least=100).getpixel((5, 5)) == (90, 90, 90)


def test_the_limit_of_pixels_is_the_user_s(folder: Path, collection: Collection) -> None:
    draw(folder / "a.png")
    run(collection, folder, max_pixels=24 * 16)
    assert rows_of(collection)["a.png"]["status"] == Status.OK
    run(collection, folder, max_pixels=24 * 16 - 1)
    assert rows_of(collection)["a.png"]["status"] == Status.TOO_MANY_PIXELS


def test_blank_captions_are_counted_or_kept_if_asked(folder: Path, collection: Collection) -> None:
    for name in ("a red car.jpg", "IMG_1.jpg", "IMG_2.jpg"):
        draw(folder / name)
    (folder / "IMG_1.txt").write_text(" \n")
    summary = run(collection, folder)
    texts = {name: (row["text"], row["text_kind"]) for name, row in rows_of(collection).items()}
    assert texts == {"a red car.jpg": ("a red car", "human"), "IMG_1.jpg": ("", "none"), "IMG_2.jpg": (None, "none")}
    assert summary.marked == {"blank_caption": 1}
    run(collection, folder, keep_empty=True)
    assert (rows_of(collection)["IMG_1.jpg"]["text"], rows_of(collection)["IMG_1.jpg"]["text_kind"]) == ("", "human")


def test_a_link_to_nothing_is_counted_and_measuring_goes_on(folder: Path, collection: Collection) -> None:
    draw(folder / "a.png")
    (folder / "disk").symlink_to("/mnt/not mounted/photos")
    (folder / "gone.jpg").symlink_to("/mnt/not mounted/gone.jpg")
    assert size_of_folder(folder).count == 2
    summary = run(collection, folder)
    assert (summary.dropped, summary.left_out) == ({"missing_file": 1}, {"dead_link": 1})


def test_what_the_system_does_not_let_us_read_is_tried_again(
    folder: Path, collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of a disk that is gone for a moment looks the same when it is back."""
    draw(folder / "a.jpg")
    (folder / "b.jpg").symlink_to("/proc/self/mem")  # reading it is an error of input and output
    (folder / "c.jpg").symlink_to("nowhere")
    for _ in range(2):
        summary = run(collection, folder)
        assert (summary.parts_done, summary.dropped, summary.unread) == (1, {"missing_file": 2}, 1)
    assert "1 files can't be read now" in caplog.text
    (folder / "b.jpg").unlink()
    assert (run(collection, folder).parts_done, run(collection, folder).parts_done) == (1, 0)


def test_a_new_caption_stores_no_image_again(folder: Path, collection: Collection) -> None:
    plain, turned = draw(folder / "a cat.jpg"), draw(folder / "a dog.jpg", 1, exif=exif(6))
    run(collection, folder)
    before = rows_of(collection)
    images = {row["path"]: (collection.root / row["image"]).stat().st_ino for row in before.values()}
    plain.with_suffix(".txt").write_text("my cat")
    assert run(collection, folder).parts_done == 1
    after = rows_of(collection)
    assert after == before | {plain.name: before[plain.name] | {"text": "my cat"}}
    assert {row["path"]: (collection.root / row["image"]).stat().st_ino for row in after.values()} == images
    draw(plain, 7)
    (collection.root / before[turned.name]["image"]).write_bytes(b"damaged")
    run(collection, folder)
    again = rows_of(collection)
    assert again[plain.name]["sha256"] == hashlib.sha256(plain.read_bytes()).hexdigest() != before[plain.name]["sha256"]
    assert again[turned.name] == before[turned.name]
    stored = (collection.root / again[turned.name]["image"]).read_bytes()
    assert hashlib.sha256(stored).hexdigest() == again[turned.name]["image_sha256"]


@pytest.mark.parametrize(("size", "reason"), [(2**29 + 1, "not_an_image"), (20 * 2**30, "too_many_pixels")])
def test_a_huge_file_of_nothing_is_not_read(tmp_path: Path, size: int, reason: str) -> None:
    (tmp_path / "x.jpg").touch()
    os.truncate(tmp_path / "x.jpg", size)  # of zeros, which take no space on the disk
    with pytest.raises(ImageError) as refused:
        read_file(tmp_path / "x.jpg")
    assert refused.value.reason == reason
