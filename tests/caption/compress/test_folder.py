"""Compressing loses no caption, touches no original, survives kills, and a bad image costs itself."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image, ImageCms

from dreamloom.base.errors import UserError
from dreamloom.base.images.metadata import find_refusal
from dreamloom.caption.compress.config import CompressConfig
from dreamloom.caption.compress.folder import CompressResult, compress_folder
from dreamloom.caption.sidecar import read_caption
from dreamloom.flows.commands.cli import run
from tests.conftest import Crash
from tests.scrape.datasets.test_ingest import draw


def contents(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A training folder with all that EveryDream, kohya and OneTrainer put into one."""
    folder = tmp_path / "mine"
    draw(folder / "john" / "a man_1.png", 1, (64, 48))
    draw(folder / "john" / "a man_1.jpg", 2, (64, 48))
    (folder / "john" / "a man_1.txt").write_text("both of them")
    draw(folder / "john" / "x.jpg", 3, (64, 48))
    (folder / "john" / "X.JPG.txt").write_text("long, with a tag")
    (folder / "john" / "x.yaml").write_text("tags: [red]")
    draw(folder / "john" / "x-masklabel.png", 4, (64, 48))
    (folder / "john" / "multiply.txt").write_text("0.5")
    draw(folder / "deep" / "er" / "a cat.bmp", 5, (64, 48))
    (folder / "global.yaml").write_text("flip_p: 0.5")
    (folder / "john" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "notes.md").write_text("mine")
    return folder


def compress(mine: Path, **config: object) -> tuple[Path, CompressResult]:
    output = mine.parent / "new"
    return output, compress_folder(mine, output, CompressConfig.model_validate(config))


def test_captions_and_all_that_belongs_to_images_come_along(mine: Path) -> None:
    before = contents(mine)
    new, result = compress(mine)
    assert contents(mine) == before
    assert set(contents(new)) == {
        ".dreamloom.json",
        *("deep/er/a cat.webp", "global.yaml", "notes.md", "john/multiply.txt"),
        *("john/a man_1.webp", "john/a man_1.txt", "john/a man_1_(2).webp", "john/a man_1_(2).txt"),
        *("john/x.webp", "john/x.txt", "john/x.yaml", "john/x-masklabel.png"),
    }
    assert (result.summary.rows, result.summary.kept, result.summary.dropped) == (5, 4, {"truncated": 1})
    assert read_caption(new / "john" / "a man_1_(2).webp").text == "both of them"
    assert read_caption(new / "john" / "x.webp").text == read_caption(mine / "john" / "x.jpg").text
    assert read_caption(new / "deep" / "er" / "a cat.webp").text == "a cat"
    kept = (*(mine / "john" / name for name in ("a man_1.png", "a man_1.jpg", "x.jpg")), mine / "deep/er/a cat.bmp")
    assert result.bytes_before == sum(path.stat().st_size for path in kept)
    again = compress(mine)[1]
    assert again.summary.bytes_written == 0 and again.summary.marked["there already"] == 4


def test_a_text_that_cannot_be_read_costs_no_image(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (20, 20)).save(mine / f"{name}.png")
    for name in ("a.txt", "notes.md"):
        (mine / name).symlink_to("/proc/self/mem")  # reading it is an error of input and output
    result = compress_folder(mine, tmp_path / "new", CompressConfig(), tmp_path / "new.log")
    assert result.summary.kept == 2 and {f.suffix for f in (tmp_path / "new").iterdir() if f.stem in "ab"} == {".webp"}
    assert (tmp_path / "new.log").read_text().count("can't be read") == 2


def test_tables_of_captions_name_the_new_images(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    draw(mine / "train" / "0.png", 1)
    draw(mine / "train" / "0.jpg", 2)
    broken = '{"file_name": "train/0.png"'
    rows: list[dict[str, object]] = [{"file_name": "train/0.png", "text": "train/0.png, a car", "n": 1}]
    rows.append({"file_name": "gone.png", "text": "no"})
    (mine / "metadata.jsonl").write_text("\n".join([*map(json.dumps, rows), broken]))
    (mine / "train" / "metadata.csv").write_text('file_name;text\n0.jpg;"a; car"\n./0.png;b\n')
    kohya = {str(mine / "train" / "0.png"): {"caption": "a"}, "train\\0.jpg": {"caption": "b"}}
    (mine / "meta.json").write_text(json.dumps(kohya))
    (mine / "other.json").write_text('{"a":1}')
    pq.write_table(pa.table({"file_name": ["train/0.jpg", None], "n": [1, 2]}), mine / "list.parquet")
    new, _ = compress(mine)
    lines = (new / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines[:2]] == [{**rows[0], "file_name": "train/0_(2).webp"}, rows[1]]
    assert lines[2] == broken
    assert (new / "train" / "metadata.csv").read_text() == 'file_name;text\n0.webp;"a; car"\n0_(2).webp;b\n'
    absolute = str((new / "train" / "0_(2).webp").absolute())
    assert list(json.loads((new / "meta.json").read_text())) == [absolute, "train/0.webp"]
    assert (new / "other.json").read_text() == '{"a":1}'
    assert pq.read_table(new / "list.parquet").to_pydict() == {"file_name": ["train/0.webp", None], "n": [1, 2]}


@pytest.mark.parametrize("format_name", ["webp", "jpeg", "avif", "png"])
def test_metadata_goes_or_stays_and_a_refusal_stays(tmp_path: Path, format_name: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Model], exif[ExifTags.Base.Orientation] = "Camera 9", 6
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 51.0, 30.0)})
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a plus:DataMining="DMI-PROHIBITED-GENAIMLTRAINING"/></x:xmpmeta>'
    draw(tmp_path / "mine" / "a.jpg", 1, (64, 48), exif=exif.tobytes(), xmp=xmp)
    for keep in (False, True):
        new = tmp_path / f"new{keep}"
        config = CompressConfig.model_validate({"format": format_name, "keep_exif": keep})
        compress_folder(tmp_path / "mine", new, config)
        (file,) = new.glob("a.*")
        assert find_refusal(file.read_bytes()) == "iptc: DMI-PROHIBITED-GENAIMLTRAINING"
        with Image.open(file) as image:
            assert image.size == (48, 64)
            found = image.getexif()
        assert found.get(ExifTags.Base.Orientation, 1) == 1
        assert (ExifTags.Base.Model in found) == bool(found.get_ifd(ExifTags.IFD.GPSInfo)) == keep


def test_pixels_are_those_that_every_program_shows(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    colors = np.full((40, 60, 4), (200, 60, 30, 255), dtype=np.uint8)
    colors[:, :30, 3] = 0
    Image.fromarray(colors).save(mine / "clear.png")
    Image.fromarray(colors[..., :3]).convert("CMYK").save(mine / "cmyk.jpg", quality=100)
    Image.fromarray(np.full((40, 60), 30_000, dtype=np.uint16)).save(mine / "deep.png")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(colors[..., :3]).save(mine / "plain.png", icc_profile=lab)
    compress_folder(mine, tmp_path / "webp", CompressConfig(quality=100))
    compress_folder(mine, tmp_path / "jpeg", CompressConfig(format="jpeg", quality=100))
    with Image.open(tmp_path / "webp" / "clear.webp") as image:
        assert image.mode == "RGBA" and image.getpixel((5, 5))[3] == 0  # type: ignore[index]
    with Image.open(tmp_path / "jpeg" / "clear.jpg") as image:
        assert min(image.getpixel((5, 5))) > 250  # type: ignore[arg-type, type-var]
    for name, color in (("cmyk", (200, 60, 30)), ("plain", (200, 60, 30)), ("deep", (117, 117, 117))):
        with Image.open(tmp_path / "webp" / f"{name}.webp") as image:
            assert np.abs(np.asarray(image.convert("RGB")).mean((0, 1)) - color).max() < 6, name


def test_a_mask_is_cut_and_padded_as_its_image(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    draw(mine / "a.jpg", 1, (120, 60))
    mask = np.zeros((60, 120), dtype=np.uint8)
    mask[:, 30:90] = 255
    Image.fromarray(mask).save(mine / "A-masklabel.PNG")
    draw(mine / "b.jpg", 2, (120, 60))
    draw(mine / "b-masklabel.png", 2, (50, 50))  # of another shape: whoever reads it says so
    compress_folder(mine, tmp_path / "cut", CompressConfig(crop="60"))
    with Image.open(tmp_path / "cut" / "a-masklabel.png") as image:
        assert image.size == (60, 60) and np.asarray(image).min() == 255
    assert (tmp_path / "cut" / "b-masklabel.png").read_bytes() == (mine / "b-masklabel.png").read_bytes()
    compress_folder(mine, tmp_path / "padded", CompressConfig(resize="60", pad="white"))
    with Image.open(tmp_path / "padded" / "a-masklabel.png") as image:
        assert image.size == (60, 60) and image.getpixel((30, 2)) == 0 and image.getpixel((30, 30)) == 255
    compress_folder(mine, tmp_path / "small", CompressConfig(resize="60"))
    assert (tmp_path / "small" / "a-masklabel.PNG").read_bytes() == (mine / "A-masklabel.PNG").read_bytes()


def test_a_caption_that_the_new_name_cannot_hold_gets_a_sidecar(tmp_path: Path) -> None:
    caption = "é" * 125  # 250 bytes, and .webp is longer than .jpg
    draw(tmp_path / "mine" / f"{caption}.jpg", 1)
    (tmp_path / "mine" / "no extension. at all").write_bytes(Path(tmp_path / "mine" / f"{caption}.jpg").read_bytes())
    compress_folder(tmp_path / "mine", tmp_path / "new", CompressConfig())
    assert sorted(read_caption(file).text for file in (tmp_path / "new").glob("*.webp")) == sorted(
        [caption, "no extension"]
    )


def test_a_folder_goes_on_with_the_same_images_and_settings_only(mine: Path) -> None:
    compress(mine)
    before = contents(mine.parent)
    with pytest.raises(UserError, match="was made from other images, or by other settings"):
        compress(mine, quality=50)
    for output in (mine / "new", mine, mine.parent, mine / "john"):
        with pytest.raises(UserError, match="lie in each other"):
            compress_folder(mine, output, CompressConfig())
    (mine.parent / "other").mkdir()
    (mine.parent / "other" / "x").write_text("theirs")
    with pytest.raises(UserError, match="was not made from"):
        compress_folder(mine, mine.parent / "other", CompressConfig())
    (mine.parent / "other" / "x").unlink()
    assert contents(mine.parent) == before


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"resize": "big"}, "big is no size"),
        ({"resize": "0x5"}, "0x5 is no size"),
        ({"crop": "5", "resize": "5"}, "leave out resize"),
        ({"pad": "white"}, "pad needs resize"),
        ({"pad": "no color", "resize": "5"}, "unknown color"),
        ({"pad": "white", "resize": "2048", "megapixels": 1}, "more than 1.0 megapixels"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CompressConfig.model_validate(config)


SCRIPT = """
from pathlib import Path
from dreamloom.caption.compress.config import CompressConfig
from dreamloom.caption.compress.folder import compress_folder
compress_folder(Path({mine!r}), Path({new!r}), CompressConfig(crop="32"))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_folder(mine: Path, crash: Crash) -> None:
    script, before = SCRIPT.format(mine=str(mine), new=str(mine.parent / "new")), contents(mine)
    compress_folder(mine, mine.parent / "undisturbed", CompressConfig(crop="32"))
    assert all(crash.run(script, at) for at in (20, 35, 40))  # later runs find what earlier ones have left
    assert not crash.run(script, 10_000)
    assert contents(mine.parent / "new") == contents(mine.parent / "undisturbed")
    assert contents(mine) == before


def test_the_command_says_what_it_made(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = mine.parent / "log"
    assert run(["compress", str(mine), "--to", str(mine.parent / "new"), "--format", "avif", "--log", str(log)]) == 0
    out = capsys.readouterr().out
    assert "5 in" in out and "4 kept" in out and "truncated 1" in out and " now\n" in out
    assert "skipped\tjohn/broken.jpg\ttruncated" in log.read_text()
    file = mine.parent / "new" / "john" / "x.avif"
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        assert image.format == "AVIF"
    assert run(["compress", str(mine), "--to", str(mine.parent / "new"), "--pad", "white"]) == 2
    assert "pad needs resize" in capsys.readouterr().err
