"""Captions in files beside the image: "x_1.txt", "x_1.caption" or "x_1.yaml" for "x_1.jpg".

The first of these that is there and can be read wins over the others and over the name: .txt, .caption, .yaml, .yml.
(EveryDream 1 has the same order without YAML; EveryDream 2 takes YAML, then .caption, then .txt, and mixes their tags.)
"""

import codecs
import logging
import os.path
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from dreamloom.base.files import commit
from dreamloom.caption.filename import read_name
from dreamloom.scrape.datasets.folder import SIDECARS

_log = logging.getLogger(__name__)

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # makes no objects; in C it is ten times as fast
_BROKEN = (OSError, yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
Origin = Literal["txt", "caption", "yaml", "name"]


@dataclass(frozen=True)
class Caption:
    """A caption and where it was found."""

    text: str
    """May be empty."""
    origin: Origin


@dataclass(frozen=True)
class Written:
    """All that the files beside an image say."""

    prompt: str | None = None
    """A text file's whole text, or a YAML file's main prompt; None: neither is there."""
    tags: tuple[tuple[str, float], ...] = ()
    """Of a YAML file, with their weights, as they stand there."""
    origin: Origin = "name"
    """Where prompt and tags are from; name: there are none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The other keys of the YAML file, whichever file the caption is from."""
    encoding: str = "UTF-8"
    """What the file of prompt and tags is written in."""
    passed_over: tuple[str, ...] = ()
    """Files that can't be read, each with the reason."""


def read_caption(picture: Path) -> Caption:
    """The caption of an image: of its sidecar, else of its name. An empty .txt is an empty caption.

    Never fails: a sidecar that can't be read is passed over, and a warning logged. Bytes that are not UTF-8 are taken
    for Windows' Latin-1.
    """
    written = read_written(picture)
    return Caption(caption_of(picture.name, written), written.origin)


def caption_of(name: str, written: Written) -> str:
    """The caption of an image of this name, with these files beside it."""
    if written.prompt is not None and not written.tags:
        return written.prompt
    # Without a main prompt, the name's caption takes its place, as it does in EveryDream 2
    prompt = read_name(name) if written.prompt is None else written.prompt
    return joined(prompt, written.tags) if written.tags else prompt


def read_written(picture: Path, beside: Container[str] | None = None) -> Written:
    """What the files beside an image say; see read_caption for those that can't be read.

    Args:
        beside: the names of the files in the image's folder, where they are known.
    """
    found = look_beside(str(picture.parent), picture.name, SIDECARS, beside)
    for one in found.passed_over:
        _log.warning("%s/%s", picture.parent, one)
    return found


def look_beside(
    folder: str, name: str, suffixes: Sequence[str] = SIDECARS, beside: Container[str] | None = None
) -> Written:
    """`read_written` without its warnings.

    Args:
        suffixes: of the files to look at, the first before the others.
        beside: the names of the files in the image's folder, where they are known.
    """
    found, passed_over = Written(), []
    stem = os.path.splitext(name)[0]
    for suffix in suffixes:
        path = f"{folder}/{stem}{suffix}"
        if (beside is not None and f"{stem}{suffix}" not in beside) or not os.path.isfile(path):
            continue
        try:
            with open(path, "rb") as stream:
                text, encoding = decode_text(stream.read())
            if suffix not in (".yaml", ".yml"):
                if found.origin == "name":
                    found = Written(text, (), "txt" if suffix == ".txt" else "caption", encoding=encoding)
                continue
            prompt, tags, settings = parse_yaml(text)
        except _BROKEN as error:
            why = " ".join(str(error).split())[:200]
            passed_over.append(f"{stem}{suffix} can't be read and is passed over ({why})")
            continue
        if found.origin == "name" and (prompt is not None or tags):
            found = Written(prompt, tags, "yaml", settings, encoding)
        else:
            found = replace(found, settings=settings)
        break
    return replace(found, passed_over=tuple(passed_over)) if passed_over else found


def parse_yaml(text: str) -> tuple[str | None, tuple[tuple[str, float], ...], dict[str, Any]]:
    """EveryDream 2's YAML: its main prompt, its tags with their weights, and its other keys.

    Raises:
        ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError: it is not such a YAML.
    """
    document = yaml.load(text, _Loader)
    if not isinstance(document, dict):
        raise ValueError("it is no mapping with main_prompt or tags")
    entries = document.get("caption", document)
    if isinstance(entries, str):
        return entries, (), {key: value for key, value in document.items() if key != "caption"}
    prompt = entries.get("main_prompt")
    if isinstance(prompt, list):
        prompt = prompt[0] if prompt else None
    settings = {str(key): value for key, value in entries.items() if key not in ("main_prompt", "tags")}
    return None if prompt is None else str(prompt), tuple(_tags(entries.get("tags") or [])), settings


def joined(prompt: str, tags: Iterable[tuple[str, float]]) -> str:
    """A prompt and its tags, the heavier first, each once."""
    words = [prompt, *(tag for tag, _ in sorted(tags, key=lambda tag: -tag[1]))]
    return ", ".join(dict.fromkeys(word.strip() for word in words if word.strip()))


def write_sidecar(picture: Path, text: str) -> Path:
    """Writes an image's caption into the .txt beside it, so that `read_caption` gives it back as it is.

    Returns:
        The .txt, which is replaced where it was there.
    """
    path = picture.with_suffix(".txt")
    with commit(path, sync=False) as temporary:
        temporary.write_bytes(encode_text(text))
    return path


def encode_text(text: str) -> bytes:
    """A caption as the content of a .txt or .caption: the inverse of `decoded`."""
    # One line end at the end and a mark at the beginning are taken away by readers, and zeros are taken for UTF-16
    ended = text + "\n" if text.endswith("\n") else text
    return ended.encode("utf-8-sig" if text.startswith("\ufeff") or "\0" in text else "utf-8", "replace")


def encode_yaml(text: str) -> bytes:
    """A caption as EveryDream 2's image YAML: all of it is the main prompt."""
    legible = "\x85" not in text  # a line break of Unicode's, which PyYAML does not escape otherwise
    whole = text.encode("utf-8", "replace").decode()
    return yaml.safe_dump({"main_prompt": whole}, allow_unicode=legible, width=2**31).encode()


def decoded(data: bytes) -> str:
    """A text file's text, without byte order mark and without the line end at its end."""
    return decode_text(data)[0]


def decode_text(data: bytes) -> tuple[str, str]:
    """A text file's text, without byte order mark and without the line end at its end, and what it is written in."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text, encoding = data.decode("utf-16", "replace"), "UTF-16"
    elif data.startswith(codecs.BOM_UTF8):
        text, encoding = data[3:].decode("utf-8", "replace"), "UTF-8 with a byte order mark"
    else:
        text, encoding = _decode(data)
    return re.sub(r"\r?\n\Z", "", text), encoding


def _decode(data: bytes) -> tuple[str, str]:
    for encoding, high, low in (("utf-16-le", data[1::2], data[::2]), ("utf-16-be", data[::2], data[1::2])):
        if len(high) == len(low) and 2 * high.count(0) > len(high) and 0 not in low:  # of Latin letters they are zero
            return data.decode(encoding, "replace"), "UTF-16"
    for name, encoding in (("utf-8", "UTF-8"), ("cp1252", "Windows-1252")):
        try:
            return data.decode(name), encoding
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1"), "Latin-1"


def _tags(tags: list[Any]) -> Iterator[tuple[str, float]]:
    for tag in tags:
        if isinstance(tag, dict):
            yield str(tag["tag"]), float(tag.get("weight", 1.0))
        else:
            yield str(tag), 1.0
