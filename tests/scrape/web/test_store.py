"""What is stored of what came: the bytes where they are good, else an image made right; compared pixel by pixel."""

import hashlib
import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.web.store import shrink

Row = dict[str, Any]


def statuses(rows: list[Row]) -> list[str]:
    return [row["status"] for row in rows]


def stored(collection: Collection, row: Row) -> np.ndarray[Any, Any]:
    with Image.open(collection.root / row["image"]) as image:
        assert image.mode in ("RGB", "L")
        assert (row["width"], row["height"]) == image.size
        assert image.getexif().get(0x0112, 1) == 1
        return np.asarray(image.convert("RGB"), int)


def test_bytes_that_are_good_are_kept_as_they_came(site: Any, collection: Collection) -> None:
    bodies = [site.image(1), site.image(2, name="PNG"), site.image(3, name="WEBP")]
    urls = [site.put(f"/{n}.exe", body, headers={"Content-Type": "text/html"}) for n, body in enumerate(bodies)]
    rows = site.scraped(collection, urls)
    for row, body, extension in zip(rows, bodies, ("jpg", "png", "webp"), strict=True):
        assert row["image"] == f"images/00000/{row['key']}.{extension}"
        assert (collection.root / row["image"]).read_bytes() == body
        assert row["sha256"] == hashlib.sha256(body).hexdigest()
        assert (row["bytes"], row["width"], row["height"]) == (len(body), 64, 48)
        assert (row["original_width"], row["original_height"], row["text_kind"]) == (64, 48, "alt")


def test_images_that_need_it_are_made_right(site: Any, collection: Collection) -> None:
    upright = np.asarray(Image.open(io.BytesIO(site.image(7, name="PNG"))).convert("RGB"))
    out = {name: io.BytesIO() for name in ("turned", "clear", "gif", "tiff")}
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(upright.transpose(1, 0, 2)[::-1])).save(
        out["turned"], "JPEG", quality=100, subsampling=0, exif=exif
    )
    clear = np.dstack([upright, np.full(upright.shape[:2], 255, np.uint8)])
    clear[:, :32] = (9, 9, 9, 0)
    Image.fromarray(clear).save(out["clear"], "PNG")
    Image.fromarray(upright).save(out["gif"], "GIF")
    Image.fromarray(upright).save(out["tiff"], "TIFF")
    deep = cv2.imencode(".png", upright[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    urls = [site.put(f"/{name}", data.getvalue()) for name, data in out.items()] + [site.put("/deep", deep)]
    rows = site.scraped(collection, urls, background_color="#00ff00", encode_format="png")
    assert [(r["status"], r["image"][-4:]) for r in rows] == [("ok", ".png")] * 5
    expected = [upright] * 5
    expected[1] = np.where(clear[..., 3:] == 0, np.array([0, 255, 0]), upright)
    for row, pixels, allowed in zip(rows, expected, (12, 0, 0, 0, 0), strict=True):
        assert np.abs(stored(collection, row) - pixels).max() <= allowed, row["url"]
    rows = site.scraped(collection, urls, encode_format="webp", encode_quality=90)
    assert [r["image"][-5:] for r in rows] == [".webp"] * 5


def test_large_images_are_shrunk_once(site: Any, collection: Collection) -> None:
    y, x = np.mgrid[0:1200, 0:1600]
    big = np.stack([x * 255 // 1600, y * 255 // 1200, (x + y) % 256 // 2 + 64], -1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(big).save(out, "JPEG", quality=95)
    urls = [site.put("/big", out.getvalue()), site.put("/small", site.image(1, 160, 100))]
    rows = site.scraped(collection, urls, shrink_to=100)
    assert [(r["width"], r["height"]) for r in rows] == [(133, 100), (160, 100)]
    assert [(r["original_width"], r["original_height"]) for r in rows] == [(1600, 1200), (160, 100)]
    reference = cv2.resize(big, (133, 100), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(stored(collection, rows[0]) - reference).mean() < 4
    assert (collection.root / rows[1]["image"]).read_bytes() == site.image(1, 160, 100)
    assert site.scraped(collection, urls, shrink_to=None)[0]["width"] == 1600


@given(width=st.integers(1, 300), height=st.integers(1, 300), scale=st.floats(0.1, 1), seed=st.integers(0, 99))
def test_shrinking_is_lanczos(width: int, height: int, scale: float, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = shrink(image, size)
    assert (small.size, small.mode) == (size, "RGB")
    difference = np.asarray(small, int) - np.asarray(image.resize(size, Image.Resampling.LANCZOS), int)
    assert np.abs(difference).mean() < (1 if min(size) >= 64 else 5)


def test_many_scans_are_refused_where_they_cost_much(site: Any, collection: Collection) -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(site.image(1, 640, 480))).save(out, "JPEG", progressive=True)
    whole = out.getvalue()
    many = whole[:-2] + 90 * whole[whole.rindex(b"\xff\xda") : -2] + whole[-2:]
    urls = [site.put("/whole", whole), site.put("/many", many)]
    assert statuses(site.scraped(collection, urls)) == ["ok", "ok"]
    rows = site.scraped(collection, urls, max_pixels=640 * 480)
    assert [(row["status"], row["detail"]) for row in rows] == [
        ("ok", None),
        ("too_many_pixels", "100 times 640 × 480"),
    ]


def test_what_is_no_image_to_train_on(site: Any, collection: Collection) -> None:
    animation = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb += struct.pack(">I", zlib.crc32(bomb[12:])) + bytes(4) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    cases = {
        "/page.jpg": (b"<!DOCTYPE html><html>not found</html>", "not_an_image"),
        "/svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not_an_image"),
        "/empty": (b"", "empty"),
        "/heic": (b"\0\0\0\x18ftypheic" + bytes(99), "unsupported"),
        "/half": (site.image(1, 300, 300)[:-900], "truncated"),
        "/half.png": (site.image(1, name="PNG")[:-20], "truncated"),
        "/pixel": (site.image(1, 1, 1, "GIF"), "placeholder"),
        "/flat": (site.image(1, 64, 15), "too_small"),
        "/least": (site.image(2, 48, 16), "ok"),
        "/long": (site.image(1, 193, 64), "bad_aspect"),
        "/three": (site.image(1, 192, 64), "ok"),
        "/moves": (animation.getvalue(), "animated"),
        "/bomb": (bomb, "too_many_pixels"),
    }
    urls = [site.put(path, body) for path, (body, _) in cases.items()]
    rows = site.scraped(collection, urls)
    assert [row["status"] for row in rows] == [status for _, status in cases.values()]
    assert rows[9]["detail"] == "193 × 64"
    assert statuses(site.scraped(collection, urls[-2:], animated="first")) == ["ok", "too_many_pixels"]
    assert statuses(site.scraped(collection, urls[10:11], max_pixels=192 * 64 - 1)) == ["too_many_pixels"]
    assert [p.suffix for p in (collection.root / "images" / "00000").iterdir()] == []


def test_an_image_without_its_end_mark_is_taken_if_asked_and_marked(site: Any, collection: Collection) -> None:
    whole = site.image(1)
    urls = [site.put("/endless", whole[:-2]), site.put("/cut", site.image(2)[:-40])]
    assert statuses(site.scraped(collection, urls)) == ["truncated", "truncated"]
    row, cut = site.scraped(collection, urls, accept_missing_end=True)
    assert (row["status"], row["detail"], cut["status"]) == ("ok", "its end mark was missing", "truncated")
    assert (collection.root / row["image"]).read_bytes() == whole
    assert row["sha256"] == hashlib.sha256(whole[:-2]).hexdigest()  # of what came
    assert collection.summary(Table.RECORDS, "00000").marked == {"missing_end": 1}
    kept, _, _ = site.scraped(collection, [*urls, site.put("/new", site.image(3))], accept_missing_end=True)
    assert (kept["detail"], site.hits["/endless"]) == ("its end mark was missing", 2)  # it was not asked for again
    assert collection.summary(Table.RECORDS, "00000").marked == {"missing_end": 1}
