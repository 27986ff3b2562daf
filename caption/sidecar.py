"""Captions in files beside the picture: "x_1.txt", "x_1.caption" or "x_1.yaml" for "x_1.jpg".

The first of these that is there and can be read wins over the others and over the name: .txt, .caption, .yaml, .yml.
(EveryDream 1 has the same order without YAML; EveryDream 2 takes YAML, then .caption, then .txt, and mixes their tags.)
"""

import codecs
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from base.files import commit
from caption.filename import read_name
from scrape.folder import SIDECARS

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caption:
    """A caption and where it was found."""

    text: str
    """May be empty."""
    origin: Literal["txt", "caption", "yaml", "name"]


@dataclass(frozen=True)
class Written:
    """All that the files beside a picture say."""

    prompt: str | None = None
    """A text file's whole text, or a YAML file's main prompt; None: neither is there."""
    tags: tuple[tuple[str, float], ...] = ()
    """Of a YAML file, with their weights, as they stand there."""
    origin: Literal["txt", "caption", "yaml", "name"] = "name"
    """Where prompt and tags are from; name: there are none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The other keys of the YAML file, whichever file the caption is from."""


def read_caption(picture: Path) -> Caption:
    """The caption of a picture: of its sidecar, else of its name. An empty .txt is an empty caption.

    Never fails: a sidecar that can't be read is passed over, and a warning logged. Bytes that are not UTF-8 are taken
    for Latin-1.
    """
    written = read_written(picture)
    if written.origin == "name":
        return Caption(read_name(picture.name), "name")
    if written.prompt is not None and not written.tags:
        return Caption(written.prompt, written.origin)
    # Without a main prompt, the name's caption takes its place, as it does in EveryDream 2
    prompt = read_name(picture.name) if written.prompt is None else written.prompt
    return Caption(joined(prompt, written.tags), written.origin)


def read_written(picture: Path, beside: Collection[str] | None = None) -> Written:
    """What the files beside a picture say; see read_caption for those that can't be read.

    Args:
        beside: the names of the files in the picture's folder, where they are known.
    """
    found = Written()
    for suffix in SIDECARS:
        path = picture.with_suffix(suffix)
        if beside is not None and path.name not in beside:
            continue
        try:
            if not path.is_file():
                continue
            if suffix not in (".yaml", ".yml"):
                if found.origin == "name":
                    found = Written(decoded(path.read_bytes()), (), "txt" if suffix == ".txt" else "caption")
                continue
            prompt, tags, settings = parse_yaml(decoded(path.read_bytes()))
        except (OSError, yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            _log.warning("%s can't be read and is passed over (%s)", path, " ".join(str(error).split())[:200])
            continue
        if found.origin == "name" and (prompt is not None or tags):
            return Written(prompt, tags, "yaml", settings)
        return replace(found, settings=settings)
    return found


def parse_yaml(text: str) -> tuple[str | None, tuple[tuple[str, float], ...], dict[str, Any]]:
    """EveryDream 2's YAML: its main prompt, its tags with their weights, and its other keys.

    Raises:
        ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError: it is not such a YAML.
    """
    document = yaml.safe_load(text)
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
    """Writes a picture's caption into the .txt beside it, so that `read_caption` gives it back as it is.

    Returns:
        The .txt, which is replaced where it was there.
    """
    path = picture.with_suffix(".txt")
    # One line end at the end and a mark at the beginning are taken away by readers
    ended = text + "\n" if text.endswith("\n") else text
    encoding = "utf-8-sig" if text.startswith("\ufeff") else "utf-8"
    with commit(path, sync=False) as temporary:
        temporary.write_bytes(ended.encode(encoding, "replace"))
    return path


def decoded(data: bytes) -> str:
    """A text file's text, without byte order mark and without the line end at its end; if not UTF-8, Latin-1."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    return re.sub(r"\r?\n\Z", "", text)


def _tags(tags: list[Any]) -> Iterator[tuple[str, float]]:
    for tag in tags:
        if isinstance(tag, dict):
            yield str(tag["tag"]), float(tag.get("weight", 1.0))
        else:
            yield str(tag), 1.0
