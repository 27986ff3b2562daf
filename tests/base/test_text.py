"""Text of anybody is fit for a terminal, and names that are not UTF-8 read the same everywhere."""

import os

from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.files.folder_names import path_key
from dreamloom.base.text import printable, without_surrogates


def test_a_name_that_is_not_utf_8_reads_the_same_in_messages_tables_and_paths() -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    assert printable(name) == without_surrogates(name) == path_key(name) == "caf\u00e9.jpg"


@given(st.text(st.characters()))
def test_what_a_terminal_obeys_is_an_escape(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not any(character in shown for character in "\x1b\n\r\x07\x9b\u202e")
