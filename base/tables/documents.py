"""Reads the text, JSON and YAML that people and other programs leave beside images, with bounds.

One decoder and one set of rules for all of them. What can't be read is a `DocumentError`, whatever its bytes are.

YAML is read by the core schema of YAML 1.2: `no`, `on` and `yes` are words, `1:1` and `2024-01-01` are texts, and `010`
is ten. NaN is null, in JSON, too.
"""

import codecs
import json
import math
import os
import re
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import yaml

from dreamloom.base.text import brief

MAX_BYTES = 2**20
"""Maximum size of a file beside an image."""
MAX_DOCUMENT_BYTES = 2**30
"""Maximum size of a file about many images; COCO's largest has 450 MB."""
MAX_DEPTH = 64
"""Maximum depth of lists and mappings inside each other."""
MAX_NODES = 200_000
"""Maximum number of values in a YAML, its aliases counted as what they stand for (539 bytes can stand for 10⁹)."""


class DocumentError(ValueError):
    """Why a document can't be read, without the file's name: "line 2: the key tags is repeated"."""


class RepeatedKeyError(DocumentError):
    """A mapping repeats a key with another value, of which one would count by chance."""


# Text


def read_document(path: str | os.PathLike[str]) -> bytes:
    """Reads a file about many images: a table, or one of a dataset's.

    Raises:
        OSError: it can't be read.
        DocumentError: it is longer than MAX_DOCUMENT_BYTES.
    """
    with open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size > MAX_DOCUMENT_BYTES:
            raise DocumentError(f"it is longer than {MAX_DOCUMENT_BYTES:,} bytes")
        return stream.read()


def read_text(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> tuple[str, str]:
    """Reads a text file; returns its text and its encoding, as `decode_with_encoding` does.

    Raises:
        OSError: it can't be read.
        DocumentError: it is longer than `max_bytes`, or a file of another kind.
    """
    with open(path, "rb") as stream:
        data = stream.read(max_bytes + 1)
    refuse_other_kinds(data)
    if len(data) > max_bytes:
        raise DocumentError(f"it is longer than {max_bytes:,} bytes")
    return decode_with_encoding(data)


_OTHER_KINDS = {
    b"PAR1": "a parquet file",
    b"PK\3\4": "a zip archive, as office documents are",
    b"\x1f\x8b": "compressed",
    b"{\\rtf": "a document of a word processor (RTF)",
    b"\xd0\xcf\x11\xe0": "a document of Word",
    b"%PDF-": "a PDF",
    b"\xff\xd8\xff": "an image",
    b"\x89PNG": "an image",
}
"""First bytes → what a file is that people rename to a text, or save as one."""


def refuse_other_kinds(begin: bytes) -> None:
    """Raises DocumentError where a file that is taken for a text begins like one of another kind."""
    if kind := next((kind for mark, kind in _OTHER_KINDS.items() if begin.startswith(mark)), None):
        raise DocumentError(f"it is {kind}, and no text; save it as plain text, or name it so")


def decode_text(data: bytes) -> str:
    """Decodes a text file, without byte order mark and without the line end at its end."""
    return decode_with_encoding(data)[0]


def decode_with_encoding(data: bytes) -> tuple[str, str]:
    """Decodes a text file as `decode_text` does; returns its text and its encoding."""
    if not data.strip(b"\0"):  # what a power cut leaves of a file on some systems
        return "", "UTF-8"
    marked = next((each for each in _MARKS if data.startswith(each[0])), None)
    if marked is None:
        text, encoding = _decode(data)
    else:
        mark, codec, encoding = marked
        text = data[len(mark) :].decode(codec, "replace")
    return re.sub(r"\r?\n\Z", "", text), encoding


_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),  # begins like UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
    (codecs.BOM_UTF8, "utf-8", "UTF-8 with a byte order mark"),
)


def _decode(data: bytes) -> tuple[str, str]:
    for encoding, high, low in (("utf-16-le", data[1::2], data[::2]), ("utf-16-be", data[::2], data[1::2])):
        if len(high) == len(low) and 2 * high.count(0) > len(high) and 0 not in low:  # of Latin letters they are zero
            return data.decode(encoding, "replace"), "UTF-16"
    data = data.rstrip(b"\0")  # which a power cut leaves at the end of a file on some systems
    for name, encoding in (("utf-8", "UTF-8"), ("cp1252", "Windows-1252")):
        try:
            return data.decode(name), encoding
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1"), "Latin-1"


# JSON


def parse_json(
    document: str | bytes,
    object_hook: Callable[[dict[str, Any]], Any] = lambda item: item,
    of_many: bool = False,
) -> Any:
    """Parses JSON; NaN and infinities are None.

    Args:
        document: the text, or its bytes in any encoding.
        object_hook: see json.loads.
        of_many: whether it is about many images, of which one entry that repeats a key costs no other: it is None.

    Raises:
        DocumentError: it is not JSON, nested deeper than MAX_DEPTH, or repeats a key with another value.
    """
    text = decode_text(document) if isinstance(document, bytes) else document
    repeated: list[str] = []

    def make(pairs: list[tuple[str, Any]]) -> Any:
        item = dict(pairs)
        if len(item) < len(pairs) and (keys := [key for key, value in pairs if item[key] != value]):
            repeated.append(keys[0])
            return None
        return object_hook(item)

    try:
        value = json.loads(text, object_pairs_hook=make, parse_constant=lambda _: None, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise DocumentError(f"line {error.lineno}: {error.msg}") from error
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except ValueError as error:  # a number of thousands of digits
        raise DocumentError(str(error)) from error
    if repeated and (value is None or not of_many):
        raise RepeatedKeyError(f"the key {brief(repeated[-1], 80)} is repeated")
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return value
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    raise DocumentError(_TOO_DEEP)


def _finite(text: str) -> float | None:
    return number if math.isfinite(number := float(text)) else None


_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"


# YAML


def parse_yaml(text: str, typed: bool = True) -> Any:
    """Parses one YAML document.

    Args:
        text: the document.
        typed: whether plain scalars may be numbers and booleans; else they are texts as they are written ("1.10",
            "true"), or null.

    Raises:
        DocumentError: it is not YAML, repeats a key, is nested deeper than MAX_DEPTH, or stands for more than MAX_NODES
            values.
    """
    try:
        _check_size(text, yaml.SafeLoader if typed else _CLoader)
        return yaml.load(text, _TypedLoader if typed else _TextLoader)  # SafeLoaders, which make no objects
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise DocumentError(f"{line}{error.problem}") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(brief(error)) from error


_CLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C it is ten times as fast


def _check_size(text: str, loader: Any) -> None:
    """Counts values and depth by the parser's events, before anything is made of them."""
    sizes: dict[str, int] = {}  # anchor → values that it stands for
    opened: list[tuple[str | None, int]] = []  # the anchor of each open collection, and the values before it
    nodes = 0
    for event in yaml.parse(text, loader):
        match event:
            case yaml.CollectionStartEvent():
                opened.append((event.anchor, nodes))
                nodes += 1
            case yaml.CollectionEndEvent():
                anchor, before = opened.pop()
                if anchor is not None:
                    sizes[anchor] = nodes - before
            case yaml.ScalarEvent():
                nodes += 1
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            case yaml.AliasEvent():
                if any(anchor == event.anchor for anchor, _ in opened):
                    raise DocumentError(f"the alias {event.anchor} contains itself")
                nodes += sizes.get(str(event.anchor), 0)
        if len(opened) > MAX_DEPTH:
            raise DocumentError(_TOO_DEEP)
        if nodes > MAX_NODES:
            raise DocumentError(f"it stands for more than {MAX_NODES:,} values")


class _UniqueKeys:
    """Rejects repeated keys, of which PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"the key {key.value} is repeated", problem_mark=key.start_mark)
                seen.add(key.value)
        return dict(super().construct_mapping(node, deep))  # type: ignore[misc]


class _TextLoader(_UniqueKeys, _CLoader):  # type: ignore[misc]
    """Loads null, and all other plain scalars as they are written."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


_MAX_DIGITS = 1000
"""Python itself refuses decimal numbers of 4,300 digits, but no hexadecimal ones."""


class _TypedLoader(_UniqueKeys, yaml.SafeLoader):
    """Loads plain scalars by YAML 1.2's core schema; not in C, since its errors then name better lines."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def construct_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"a number of {len(text):,} digits")
        return int(text[2:], {"0o": 8, "0x": 16}[text[:2]]) if text[:2] in ("0o", "0x") else int(text)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        return float(str(self.construct_scalar(node)).lower().replace(".inf", "inf"))


_PLAIN = (
    ("merge", r"<<", ["<"]),
    ("null", r"~|null|Null|NULL|\.nan|\.NaN|\.NAN|", [*"~nN.", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)",
        [*"-+.0123456789"],
    ),
)
"""Kind of a plain scalar → how it is written, and with what it begins (https://yaml.org/spec/1.2.2/#103-core-schema)."""

for _loader, _kinds in ((_TextLoader, _PLAIN[:2]), (_TypedLoader, _PLAIN)):
    for _kind, _pattern, _first in _kinds:
        _loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"({_pattern})\Z"), _first)
_TypedLoader.add_constructor("tag:yaml.org,2002:int", _TypedLoader.construct_int)
_TypedLoader.add_constructor("tag:yaml.org,2002:float", _TypedLoader.construct_float)
