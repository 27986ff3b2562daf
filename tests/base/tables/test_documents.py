"""What people and programs leave beside images is read as they meant it, or refused in constant time."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.tables.documents import (
    MAX_DEPTH,
    DocumentError,
    decode_text,
    decode_with_encoding,
    parse_json,
    parse_yaml,
    read_text,
)

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        (b"a cat\n", "a cat", "UTF-8"),
        (b"a\r\nb\r\n", "a\r\nb", "UTF-8"),
        ("\ufeffmarked".encode(), "marked", "UTF-8 with a byte order mark"),
        ("2\r\n".encode("utf-16"), "2", "UTF-16"),  # echo 2 > multiply.txt in PowerShell
        ("2\r\n".encode("utf-16-be"), "2", "UTF-16"),
        ("né".encode("utf-32"), "né", "UTF-32"),
        ("café".encode("latin-1"), "café", "Windows-1252"),
        ("“café”".encode("cp1252"), "“café”", "Windows-1252"),
        (b"\x81\xe9", "\x81é", "Latin-1"),
    ],
)
def test_text_in_the_encodings_that_people_have(data: bytes, text: str, encoding: str) -> None:
    assert decode_with_encoding(data) == (text, encoding)


def test_yaml_has_the_types_of_version_1_2() -> None:
    text = "{a: no, b: 1:1, c: 010, d: 1e-6, e: .nan, f: 2024-01-01, g: 0x10, h: true, i: ~, j: , k: 'null', l: +2}"
    values = ["no", "1:1", 10, 1e-6, None, "2024-01-01", 16, True, None, None, "null", 2]
    assert list(parse_yaml(text).values()) == values


def test_yaml_without_types_is_text_as_it_is_written() -> None:
    text = "[no, 1:1, 010, 1.10, .nan, true, ~, 'null', 2024-01-01, ]"
    assert parse_yaml(text, typed=False) == ["no", "1:1", "010", "1.10", None, "true", None, "null", "2024-01-01"]


def test_aliases_that_stand_for_little_are_read() -> None:
    assert parse_yaml("base: &b {x: 1}\nmore: {<<: *b, y: 2}") == {"base": {"x": 1}, "more": {"x": 1, "y": 2}}


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "stands for more than"),
        ("&a [*a]", "contains itself"),
        ("[" * 100_000, "deeper than"),
        ("a: 1\nb: 2\na: 3", "line 3: the key a is repeated"),
        ("a: [", "line"),
        ("!!python/object/apply:os.system [ls]", "line 1"),
        ("a: b\n---\nc: d", "another document"),
        ("\0", "unacceptable"),
        ("!!timestamp never", "."),
        ("!!omap 5", "."),
    ],
)
def test_yaml_that_is_none_is_refused(text: str, message: str, typed: bool) -> None:
    with pytest.raises(DocumentError, match=message):
        parse_yaml(text, typed)


@pytest.mark.parametrize("text", ["[1", "[" * 100_000, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), '{"a":' * 9000])
def test_json_that_is_none_or_too_deep_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        parse_json(text)


def test_json_may_be_as_deep_as_is_said_and_nan_is_null() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert parse_json('[NaN, Infinity, -Infinity, 1, "NaN"]') == [None, None, None, 1, "NaN"]
    assert parse_json("[1]".encode("utf-16")) == [1]
    assert parse_json("[1e999, -1e999, 1e9]") == [None, None, 1e9]


def test_a_repeated_key_of_a_json_is_not_chosen_by_chance() -> None:
    for text in ('{"a": 1, "a": 2}', '[{"b": {"": 1, "": 2}}]', '{"a": {"a": 1, "a": 2}, "b": 0}'):
        with pytest.raises(DocumentError, match=r"the key a? ?is repeated"):
            parse_json(text)
    assert parse_json('{"a": [1], "b": 2, "a": [1]}') == {"a": [1], "b": 2}
    assert parse_json('{"a": [{"b": 1, "b": 2}, {"b": 3}]}', of_many=True) == {"a": [None, {"b": 3}]}
    with pytest.raises(DocumentError, match="the key 00001 is repeated"):
        parse_json('{"00001": {}, "00001": {"a": 1}}', of_many=True)


def test_what_a_power_cut_leaves_of_a_file_is_empty() -> None:
    assert decode_text(b"\0" * 4096) == ""
    assert decode_text(b"a cat\n" + b"\0" * 90) == "a cat"


def test_a_number_of_a_yaml_is_short() -> None:
    with pytest.raises(DocumentError, match="a number of 5,002 digits"):
        parse_yaml("a: 0x" + "f" * 5000)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@given(st.text() | st.text("abc:-[]{}&*!|>'\"#%? \n\t0.5<~"), st.booleans())
def test_whatever_a_yaml_holds_it_is_read_or_refused(text: str, typed: bool) -> None:
    try:
        parse_yaml(text, typed)
    except DocumentError as error:
        assert str(error)


@pytest.mark.parametrize(
    "begin", [b"{\\rtf1\\ansi a cat}", b"PK\3\4\x14\0", b"%PDF-1.4", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n"]
)
def test_a_file_of_another_kind_is_no_text(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(begin + b" a cat")  # as TextEdit saves it, and as people rename
    with pytest.raises(DocumentError, match="and no text; save it as plain text"):
        read_text(tmp_path / "a.txt")


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"x" * 101)
    assert read_text(tmp_path / "x.txt", 101) == ("x" * 101, "UTF-8")
    with pytest.raises(DocumentError, match="longer than 100 bytes"):
        read_text(tmp_path / "x.txt", 100)
