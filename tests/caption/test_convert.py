"""Converting touches nothing that is there, loses no caption, and goes on where it was killed."""

import os
from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.caption.convert import convert
from dreamloom.caption.formats import FORMATS
from dreamloom.caption.formats.target import Log
from tests.conftest import Crash

IMAGES = {
    "a cat_1.jpg": "a cat",
    "a cat_2.gif": "a cat",
    "a_b.jpeg": "a",
    "john/John, a man_(1).jpg": "John, a man",
    "john/x.png": "long " * 80,
    "john/_1.webp": "",
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for number, (name, caption) in enumerate(IMAGES.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(str(number).encode())
        if name == "john/x.png":
            (folder / name).with_suffix(".txt").write_text(caption)
    (folder / "john" / "multiply.txt").write_text("0.5\n")
    (folder / "global.yaml").write_text("flip_p: 0.5\n")
    (folder / "notes.md").write_text("mine")
    return folder


def all_of(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def captions_of(folder: Path, source: str) -> dict[bytes, str | None]:
    return {row.read(): row.caption for row in FORMATS[source].read(folder, Log().note)}


WANTED = {str(number).encode(): caption for number, caption in enumerate(IMAGES.values())}


def test_sidecars_are_added_beside_the_images_and_nothing_else(mine: Path, tmp_path: Path) -> None:
    before = all_of(mine)
    done = convert(mine, "filename", "txt", None, tmp_path / "log")
    after = all_of(mine)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {
        "a cat_1.txt",
        "a cat_2.txt",
        "a_b.txt",
        "john/John, a man_(1).txt",
        "john/_1.txt",
    }
    assert captions_of(mine, "txt") == WANTED
    assert (done.images, done.kept) == (6, 6)
    assert done.log.counts == {("made", ""): 5, ("right", ""): 1, ("odd", "empty caption"): 1}
    again = convert(mine, "filename", "txt", None, tmp_path / "log")
    assert again.log.counts == {("right", ""): 6, ("odd", "empty caption"): 1}
    assert all_of(mine) == after


@pytest.mark.parametrize("to", FORMATS)
def test_a_new_folder_has_images_captions_and_controls(mine: Path, tmp_path: Path, to: str) -> None:
    before = all_of(mine)
    convert(mine, "filename", to, tmp_path / "new", tmp_path / "log")
    assert captions_of(tmp_path / "new", to) == WANTED
    assert all_of(mine) == before
    if to != "webdataset":
        assert (tmp_path / "new/john/multiply.txt").read_text() == "0.5\n"
        assert (tmp_path / "new/global.yaml").read_text() == "flip_p: 0.5\n"
        assert (mine / "a cat_1.jpg").stat().st_nlink == 1
    new = all_of(tmp_path / "new")
    done = convert(mine, "filename", to, tmp_path / "new", tmp_path / "log")
    assert done.log.count("made") == 0
    assert all_of(tmp_path / "new") == new


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("to", FORMATS)
def test_every_format_becomes_every_other(mine: Path, tmp_path: Path, source: str, to: str) -> None:
    convert(mine, "filename", source, tmp_path / "one", tmp_path / "log")
    convert(tmp_path / "one", source, to, tmp_path / "two", tmp_path / "log")
    assert captions_of(tmp_path / "two", to) == WANTED


@pytest.mark.parametrize("here", [".", "../mine", "john/.."])
def test_a_folder_may_be_named_from_where_one_is(
    mine: Path, tmp_path: Path, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine)
    convert(Path(here), "filename", "txt", None, tmp_path / "log")
    convert(Path(here), "txt", "kohya", Path("../new"), tmp_path / "log")
    assert captions_of(tmp_path / "new", "kohya") == WANTED


def test_what_is_there_and_says_something_else_stays_and_is_told(mine: Path, tmp_path: Path) -> None:
    (mine / "a cat_1.txt").write_bytes("ein Kater, f\xfcr mich".encode("latin-1"))
    (mine / "a_b.png").write_bytes(b"6")
    (mine / "multiply.jpg").write_bytes(b"7")
    (mine / "y.jpg").write_bytes(b"")
    (mine / "metadata.jsonl").write_text(
        "".join(
            f'{{"file_name": "{n}", "text": "from table {n}"}}\n'
            for n in ["a cat_1.jpg", "a_b.jpeg", "a_b.png", "y.jpg"]
        )
        + '{"file_name": "multiply.jpg", "text": "x"}\n'
    )
    before = all_of(mine)
    done = convert(mine, "imagefolder", "txt", None, tmp_path / "log")
    after = all_of(mine)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"a_b.txt"}
    assert done.log.counts == {
        ("skipped", "no caption"): 4,
        ("skipped", "image is an empty file"): 1,
        ("skipped", "its sidecar would be one of EveryDream's control files"): 1,
        ("skipped", "exists, and says something else"): 2,
        ("made", ""): 1,
    }
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0].endswith("mine: imagefolder to txt")
    assert "skipped\ta cat_1.txt\texists, and says something else" in lines
    assert "made\ta_b.txt" in lines


def test_sidecars_that_are_there_in_another_encoding_are_right(mine: Path, tmp_path: Path) -> None:
    (mine / "a cat_1.txt").write_bytes(b"\xef\xbb\xbfa cat\r\n")
    done = convert(mine, "filename", "txt", None, tmp_path / "log")
    assert done.log.counts["right", ""] == 2
    assert done.log.counts["odd", "sidecar in UTF-8 with a byte order mark"] == 1


def test_names_that_no_sidecar_can_have_are_skipped(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / f"{'x' * 251}.jpg").write_bytes(b"0")
    done = convert(mine, "filename", "caption", None, tmp_path / "log")
    assert done.log.counts == {("skipped", "can't be written"): 1}
    convert(mine, "filename", "caption", tmp_path / "new", tmp_path / "log")
    assert captions_of(tmp_path / "new", "caption") == {b"0": "x" * 251}


ODD = [
    b"a\nb.jpg",
    b"caf\xe9_1.jpg",
    b"-rf.jpg",
    b"a..jpg",
    b'it\'s "x".jpg',
    b" x .jpg",
    b"a\tb.jpg",
    b"COM1.jpg",
    b"a\\b.jpg",
    b" .jpg",
    b"\r.jpg",
]


@pytest.mark.parametrize("to", FORMATS)
def test_whatever_a_name_is_its_image_and_caption_arrive(tmp_path: Path, to: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for number, name in enumerate(ODD):
        with open(os.fsencode(mine) + b"/" + name, "wb") as stream:
            stream.write(b"%d" % number)
    wanted = captions_of(mine, "filename")
    assert wanted[b"1"] == "café"
    convert(mine, "filename", to, tmp_path / "new", tmp_path / "log")
    assert captions_of(tmp_path / "new", to) == wanted


def test_what_is_no_file_is_no_sidecar_and_no_image(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "a cat.jpg").write_bytes(b"0")
    os.mkfifo(mine / "a cat.txt")  # who reads it waits for ever
    os.mkfifo(mine / "a pipe.jpg")
    (mine / "a folder.jpg").mkdir()
    done = convert(mine, "filename", "caption", None, tmp_path / "log")
    assert (mine / "a cat.caption").read_text() == "a cat"
    assert done.log.counts == {("made", ""): 1, ("skipped", "image is an empty file"): 1}


def test_links_are_followed_and_broken_ones_told(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / "elsewhere.jpg").write_bytes(b"0")
    (mine / "a cat.jpg").symlink_to("../elsewhere.jpg")
    (mine / "a dog.jpg").symlink_to("../nowhere.jpg")
    done = convert(mine, "filename", "txt", tmp_path / "deep" / "new", tmp_path / "log")
    assert captions_of(tmp_path / "deep" / "new", "txt") == {b"0": "a cat"}
    assert done.log.counts["skipped", "image can't be read"] == 1


def test_edited_captions_are_changed_and_logged(mine: Path, tmp_path: Path) -> None:
    done = convert(
        mine,
        "filename",
        "txt",
        tmp_path / "new",
        tmp_path / "log",
        change=lambda row, folder: f"{folder}: {row.caption}",
    )
    assert captions_of(tmp_path / "new", "txt")[b"0"] == "mine: a cat"
    assert captions_of(tmp_path / "new", "txt")[b"3"] == "john: John, a man"
    assert done.log.count("changed") == 6
    assert "changed\ta cat_1.jpg\t'a cat' -> 'mine: a cat'" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("source", "to", "output", "sentence"),
    [
        ("filename", "kohya", None, "kohya needs a folder of its own"),
        ("filename", "txt", "mine/new", "lie in each other"),
        ("filename", "txt", ".", "lie in each other"),
        ("filename", "txt", "other", "other exists, and was not made from"),
        ("filename", "txt", "file", "file exists, and was not made from"),
        ("filename", "nothing", "new", "There is no format nothing; there are filename, txt,"),
        ("kohya", "txt", "new", "put kohya's JSON there"),
    ],
)
def test_what_can_not_be_done_is_a_sentence_and_leaves_nothing(
    mine: Path, tmp_path: Path, source: str, to: str, output: str | None, sentence: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("theirs")
    (tmp_path / "file").write_text("theirs")
    before = all_of(tmp_path)
    with pytest.raises(UserError, match=sentence):
        convert(mine, source, to, tmp_path / output if output else None, tmp_path / "log")
    assert all_of(tmp_path) == before


def test_a_log_is_added_to_and_what_is_none_is_left_alone(mine: Path, tmp_path: Path) -> None:
    convert(mine, "filename", "txt", None, tmp_path / "log")
    first = (tmp_path / "log").read_text()
    convert(mine, "filename", "txt", None, tmp_path / "log")
    assert (tmp_path / "log").read_text().startswith(first)
    assert (tmp_path / "log").read_text().count("mine: filename to txt") == 2
    (tmp_path / "theirs").write_text("my notes\n")
    with pytest.raises(UserError, match="is not a log of captions"):
        convert(mine, "filename", "txt", None, tmp_path / "theirs")
    assert (tmp_path / "theirs").read_text() == "my notes\n"


def test_another_image_in_the_place_of_one_stays(mine: Path, tmp_path: Path) -> None:
    convert(mine, "filename", "txt", tmp_path / "new", tmp_path / "log")
    (tmp_path / "new" / "a_b.jpeg").unlink()
    (tmp_path / "new" / "a_b.jpeg").write_bytes(b"theirs")
    done = convert(mine, "filename", "txt", tmp_path / "new", tmp_path / "log")
    assert done.log.counts["skipped", "another image is in its place"] == 1
    assert (tmp_path / "new" / "a_b.jpeg").read_bytes() == b"theirs"


def test_a_folder_goes_on_with_the_same_conversion_only(mine: Path, tmp_path: Path) -> None:
    convert(mine, "filename", "txt", tmp_path / "new", tmp_path / "log")
    (mine / "another one.jpg").write_bytes(b"8")
    with pytest.raises(UserError, match="was made from other images, captions or formats"):
        convert(mine, "filename", "txt", tmp_path / "new", tmp_path / "log")


SCRIPT = """
from pathlib import Path
from dreamloom.caption.convert import convert
convert(Path({mine!r}), "filename", {to!r}, {output}, Path({log!r}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("to", ["filename", "webdataset", "txt"])
def test_killed_anywhere_and_run_again_it_ends_the_same(mine: Path, tmp_path: Path, to: str, crash: Crash) -> None:
    convert(mine, "filename", to, tmp_path / "whole", tmp_path / "log")
    wanted = all_of(tmp_path / "whole")
    for at in (2, 7, 12, 16):
        new = tmp_path / f"new{at}"
        assert crash.run(
            SCRIPT.format(mine=str(mine), to=to, output=f"Path({str(new)!r})", log=str(tmp_path / "log")), at
        )
        convert(mine, "filename", to, new, tmp_path / "log")
        assert all_of(new) == wanted


@pytest.mark.slow
def test_killed_anywhere_in_place_it_leaves_nothing_half_written(mine: Path, tmp_path: Path, crash: Crash) -> None:
    before = all_of(mine)
    convert(mine, "filename", "txt", None, tmp_path / "log")
    wanted = all_of(mine)
    for at in (2, 4, 5, 9):
        for name in wanted.keys() - before.keys():
            (mine / name).unlink()
        assert crash.run(SCRIPT.format(mine=str(mine), to="txt", output=None, log=str(tmp_path / "log")), at)
        half = {name: data for name, data in all_of(mine).items() if not name.rpartition("/")[2].startswith(".tmp-")}
        assert half.items() <= wanted.items()
        convert(mine, "filename", "txt", None, tmp_path / "log")
        assert all_of(mine) == wanted
