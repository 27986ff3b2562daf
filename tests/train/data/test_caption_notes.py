"""Captions that nobody can have meant are noted, and those that people write are not."""

import pytest

from dreamloom.train.data.caption_notes import note_captions
from dreamloom.train.data.notes import Notes


def notes_of(*captions: tuple[str, str]) -> list[str]:
    notes = Notes()
    note_captions(captions, notes)
    return list(notes.sentences())


@pytest.mark.parametrize(
    "caption",
    [
        *(
            "IMG",
            "IMG_1234",
            "DSC0001",
            "DSCN0042",
            "PXL",
            "MVIMG",
            "P1010001",
            "20230101",
            "GOPR0001",
            "0001",
            "photo 12",
        ),
        *("WhatsApp Image 2023-05-01 at 10.11.12", "Screenshot 2023-05-01 at 10.11.12", "Photo on 1-2-23 at 3.45 PM"),
        *("Bildschirmfoto 2024-01-01 um 10.00.00", "Capture d’écran 2024-01-01 à 10.00.00", "Copy of IMG 123"),
        *("Kopie von DSC01234", "DSC01234 - Kopie", "Scan 1 Seite 2", "Снимок экрана 2024-01-01 в 10.00.00"),
        *(
            "d41d8cd98f00b204e9800998ecf8427e",
            "image (3)",
            "download (1)",
            "untitled",
            "123e4567-e89b-12d3-a456-426614174000",
        ),
    ],
)
def test_names_that_programs_give_are_noted_with_the_image(caption: str) -> None:
    (sentence,) = notes_of(("jo/one.jpg", caption))
    assert "cameras and programs give" in sentence
    assert f"jo/one.jpg ({caption!r})" in sentence


@pytest.mark.parametrize(
    "caption",
    [
        "zorp",
        "jo",
        "a red car",
        "7",
        "photo of a dog",
        "image of a cat",
        "rc-car",
        "scan of a letter",
        "猫",
        "p",
        "facade",
    ],
)
def test_what_people_write_is_not_noted(caption: str) -> None:
    assert notes_of(("one.jpg", caption)) == []


def test_what_a_terminal_obeys_in_a_name_is_an_escape() -> None:
    (sentence,) = notes_of(("a\x1b[31m\n.jpg", ""))
    assert r"a\x1b[31m\n.jpg" in sentence


def test_empty_captions_and_those_of_several_lines_are_noted() -> None:
    empty, lines = notes_of(("a.jpg", " "), ("b.jpg", "a red car\na car that is red"))
    assert ("a.jpg" in empty, "empty caption" in empty) == (True, True)
    assert ("b.jpg" in lines, "one caption" in lines) == (True, True)


@pytest.mark.parametrize(
    ("caption", "note"),
    [
        ("nan", "captions that programs write where there is none"),
        ("None", "captions that programs write where there is none"),
        ("a%20red%20kite", "captions with addresses, escapes or HTML"),
        ("Tom &amp; Jerry", "captions with addresses, escapes or HTML"),
        ("a <b>red</b> kite", "captions with addresses, escapes or HTML"),
        ("see https://example.org/1.jpg", "captions with addresses, escapes or HTML"),
        ("a <sks> dog & a cat, 100% wool, <lora:x:1>, none of it", None),
    ],
)
def test_what_programs_and_pages_leave_in_captions_is_noted(caption: str, note: str | None) -> None:
    notes = Notes()
    note_captions([("a.jpg", caption)], notes)
    assert [sentence.startswith(note or "") for sentence in notes.sentences()] == ([True] if note else [])


def test_a_folder_with_one_caption_for_all_is_noted() -> None:
    same, other = [(f"x/{n}.jpg", "a zorp") for n in range(5)], [(f"y/{n}.jpg", f"zorp {n}") for n in range(5)]
    assert notes_of(*same, *other) == ["folders whose images all have one caption: x ('a zorp')."]
    assert notes_of(*same[:4]) == []
