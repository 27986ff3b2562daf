"""Names hold captions as EveryDream reads them, and every system takes the names."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.caption.filename import MAX_BYTES, NameWriter, read_name

captions = (
    st.text(max_size=300) | st.text("aé漢 _.-(1)/C\u0301", max_size=300) | st.sampled_from(["con", "COM1", "a", "A"])
)
extensions = st.sampled_from([".jpg", ".jpeg", ".webp"])


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("a photo of john jacob riding a bicycle.webp", "a photo of john jacob riding a bicycle"),
        ("john sitting on a bench_(1).png", "john sitting on a bench"),
        ("x_2.jpg", "x"),
        ("person_ (12).jpg", "person"),
        ("person (12).jpg", "person (12)"),
        ("blue_eyes, long_hair.png", "blue"),
        ("_001.jpg", ""),
        ("a,b ,  c.jpg", "a,b ,  c"),
        ("version 1.5 of it_2.tar.jpg", "version 1.5 of it"),
        ("folder_1/a cat_1.jpg", "a cat"),
        ("cafe\u0301_1.jpg", "café"),
    ],
)
def test_names_are_read_as_everydream_reads_them(name: str, caption: str) -> None:
    assert read_name(name) == caption


@pytest.mark.parametrize(
    "caption",
    [
        "a cat on a sofa",
        "John's car (1985), red & new!",
        "日本語のタイトル",
        "a  b",
        "",
        "con",
        "multiply",
        "x" * 251,
        "¡qué 🚲!",
    ],
)
def test_what_a_name_can_hold_needs_no_sidecar(caption: str) -> None:
    name, needs_sidecar = NameWriter().name(caption, ".jpg")
    assert not needs_sidecar
    assert read_name(name) == caption


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("blue_eyes, long_hair", "blue eyes, long hair.jpg"),
        ("A dog on a bench.", "A dog on a bench.jpg"),
        ("who? me: 50/50 <b>", "who me 50 50 b.jpg"),
        ("two\nlines\tand a tab", "two lines and a tab.jpg"),
        ("../../etc/passwd", "etc passwd.jpg"),
        ("-rf /", "rf.jpg"),
        (".hidden", "hidden.jpg"),
        ("trailing ", "trailing.jpg"),
        ("???", "_(1).jpg"),
        ("cafe\u0301", "café.jpg"),
        ("y" * 252, "y" * 237 + ".jpg"),
    ],
)
def test_what_a_name_can_not_hold_keeps_a_readable_one(caption: str, name: str) -> None:
    assert NameWriter().name(caption, ".jpg") == (name, True)


def test_equal_names_are_numbered_whatever_their_case_and_extension() -> None:
    writer = NameWriter()
    names = [writer.name(c, e)[0] for c, e in [("a cat", ".jpg"), ("A Cat", ".png"), ("a cat.", ".jpg"), ("", ".jpg")]]
    assert names == ["a cat.jpg", "A Cat_(2).png", "a cat_(3).jpg", "_(1).jpg"]


def test_a_name_as_long_as_may_be_gives_way_to_a_number() -> None:
    writer, caption = NameWriter(), "é" * 125
    assert writer.name(caption, ".jpg") == (caption + ".jpg", False)
    second, needs_sidecar = writer.name(caption, ".jpg")
    assert needs_sidecar
    assert caption.startswith(read_name(second))


DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\.", re.IGNORECASE)


@given(st.lists(st.tuples(captions, extensions), max_size=30))
def test_any_captions_get_names_that_every_system_takes(wanted: list[tuple[str, str]]) -> None:
    writer = NameWriter()
    stems = []
    for caption, extension in wanted:
        name, needs_sidecar = writer.name(caption, extension)
        stem = name.removesuffix(extension)
        stems.append(unicodedata.normalize("NFC", stem.casefold()))
        assert needs_sidecar or read_name(name) == caption
        assert len(name.encode()) <= MAX_BYTES
        assert not re.search(r'[<>:"/\\|?*.\x00-\x1f\x7f-\x9f]', stem)
        assert not DEVICES.match(name)
        assert stem == stem.strip().lstrip("-")
        assert stem
        assert unicodedata.is_normalized("NFC", stem)
    assert len(set(stems)) == len(stems)


def test_the_same_captions_get_the_same_names() -> None:
    wanted = ["a cat", "a cat", "x" * 300, "x" * 300, "a_b"]
    one, other = NameWriter(), NameWriter()
    assert [one.name(c, ".jpg") for c in wanted] == [other.name(c, ".jpg") for c in wanted]
