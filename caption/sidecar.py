"""Sidecars: captions in files beside the image, "x_1.txt", "x_1.caption" or "x_1.yaml" for "x_1.jpg".

The first readable one wins over the others and over the name, in the order .txt, .caption, .yaml, .yml. (EveryDream 1
has the same order without YAML; EveryDream 2 takes YAML, then .caption, then .txt, and mixes their tags.)
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
    """A caption and its origin."""

    text: str
    """May be empty."""
    origin: Origin


@dataclass(frozen=True)
class SidecarContent:
    """What the sidecars of an image say."""

    prompt: str | None = None
    """The whole text of a text file, or the main prompt of a YAML file; None: there is neither."""
    tags: tuple[tuple[str, float], ...] = ()
    """Tags of a YAML file with their weights, in order."""
    origin: Origin = "name"
    """Origin of prompt and tags; name: there are none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The other keys of the YAML file, regardless of the caption's origin."""
    encoding: str = "UTF-8"
    """Encoding of the file of prompt and tags."""
    unreadable: tuple[str, ...] = ()
    """Files that can't be read, each with the reason."""


def read_caption(image: Path) -> Caption:
    """Reads the caption of an image: from its sidecar, else from its name. An empty .txt is an empty caption.

    Never fails: an unreadable sidecar is skipped with a warning. Bytes that are not UTF-8 are read as Windows-1252.
    """
    content = read_sidecars(image)
    return Caption(resolve_caption(image.name, content), content.origin)


def resolve_caption(name: str, content: SidecarContent) -> str:
    """Returns the caption of an image with this name and these sidecars."""
    if content.prompt is not None and not content.tags:
        return content.prompt
    # without a main prompt, the name's caption takes its place, as in EveryDream 2
    prompt = read_name(name) if content.prompt is None else content.prompt
    return join_tags(prompt, content.tags) if content.tags else prompt


def read_sidecars(image: Path, siblings: Container[str] | None = None) -> SidecarContent:
    """Reads the sidecars of an image; logs a warning for each that is unreadable.

    Args:
        image: The image's path.
        siblings: The names of the files in the image's folder, if known.
    """
    content = parse_sidecars(str(image.parent), image.name, SIDECARS, siblings)
    for sentence in content.unreadable:
        _log.warning("%s/%s", image.parent, sentence)
    return content


def parse_sidecars(
    folder: str, name: str, suffixes: Sequence[str] = SIDECARS, siblings: Container[str] | None = None
) -> SidecarContent:
    """Reads the sidecars of an image, without warnings.

    Args:
        folder: The image's folder.
        name: The image's name.
        suffixes: Of the files to read, in order of precedence.
        siblings: The names of the files in the image's folder, if known.
    """
    content, unreadable = SidecarContent(), []
    stem = os.path.splitext(name)[0]
    for suffix in suffixes:
        path = f"{folder}/{stem}{suffix}"
        if (siblings is not None and f"{stem}{suffix}" not in siblings) or not os.path.isfile(path):
            continue
        try:
            with open(path, "rb") as stream:
                text, encoding = decode_with_encoding(stream.read())
            if suffix not in (".yaml", ".yml"):
                if content.origin == "name":
                    content = SidecarContent(text, (), "txt" if suffix == ".txt" else "caption", encoding=encoding)
                continue
            prompt, tags, settings = parse_yaml(text)
        except _BROKEN as error:
            why = " ".join(str(error).split())[:200]
            unreadable.append(f"{stem}{suffix} can't be read and is skipped ({why})")
            continue
        if content.origin == "name" and (prompt is not None or tags):
            content = SidecarContent(prompt, tags, "yaml", settings, encoding)
        else:
            content = replace(content, settings=settings)
        break
    return replace(content, unreadable=tuple(unreadable)) if unreadable else content


def parse_yaml(text: str) -> tuple[str | None, tuple[tuple[str, float], ...], dict[str, Any]]:
    """Parses EveryDream 2's YAML: its main prompt, its tags with their weights, and its other keys.

    Raises:
        ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError: the text is no such YAML.
    """
    document = yaml.load(text, _Loader)
    if not isinstance(document, dict):
        raise ValueError("it is not a mapping with main_prompt or tags")
    entries = document.get("caption", document)
    if isinstance(entries, str):
        return entries, (), {key: value for key, value in document.items() if key != "caption"}
    prompt = entries.get("main_prompt")
    if isinstance(prompt, list):
        prompt = prompt[0] if prompt else None
    settings = {str(key): value for key, value in entries.items() if key not in ("main_prompt", "tags")}
    return None if prompt is None else str(prompt), tuple(_tags(entries.get("tags") or [])), settings


def join_tags(prompt: str, tags: Iterable[tuple[str, float]]) -> str:
    """Joins a prompt and its tags, the heavier first, each once."""
    phrases = [prompt, *(tag for tag, _ in sorted(tags, key=lambda tag: -tag[1]))]
    return ", ".join(dict.fromkeys(phrase.strip() for phrase in phrases if phrase.strip()))


def write_sidecar(image: Path, text: str) -> Path:
    """Writes an image's caption into the .txt beside it, so that `read_caption` returns it unchanged.

    Returns:
        The .txt; an existing one is replaced.
    """
    path = image.with_suffix(".txt")
    with commit(path, sync=False) as temporary:
        temporary.write_bytes(encode_text(text))
    return path


def encode_text(text: str) -> bytes:
    """Encodes a caption for a .txt or .caption; inverts `decode_text`."""
    # readers remove one line end at the end and a mark at the beginning, and take zeros for UTF-16
    ended = text + "\n" if text.endswith("\n") else text
    return ended.encode("utf-8-sig" if text.startswith("\ufeff") or "\0" in text else "utf-8", "replace")


def encode_yaml(text: str) -> bytes:
    """Encodes a caption as EveryDream 2's image YAML; all of it is the main prompt."""
    legible = "\x85" not in text  # a Unicode line break, which PyYAML escapes only if told to
    prompt = text.encode("utf-8", "replace").decode()
    return yaml.safe_dump({"main_prompt": prompt}, allow_unicode=legible, width=2**31).encode()


def decode_text(data: bytes) -> str:
    """Decodes a text file, without byte order mark and without the line end at its end."""
    return decode_with_encoding(data)[0]


def decode_with_encoding(data: bytes) -> tuple[str, str]:
    """Decodes a text file as `decode_text` does; returns its text and its encoding."""
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
