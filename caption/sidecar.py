"""Captions in files beside the picture: "x_1.txt", "x_1.caption" or "x_1.yaml" for "x_1.jpg".

The first of these that is there and can be read wins over the others and over the name: .txt, .caption, .yaml, .yml.
(EveryDream 1 has the same order without YAML; EveryDream 2 takes YAML, then .caption, then .txt, and mixes their tags.)
"""

import codecs
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
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


def read_caption(picture: Path) -> Caption:
    """The caption of a picture: of its sidecar, else of its name. An empty .txt is an empty caption.

    Never fails: a sidecar that can't be read is passed over, and a warning logged. Bytes that are not UTF-8 are taken
    for Latin-1.
    """
    for suffix in SIDECARS:
        path = picture.with_suffix(suffix)
        try:
            if suffix == ".txt" and path.is_file():
                return Caption(_read_text(path), "txt")
            if suffix == ".caption" and path.is_file():
                return Caption(_read_text(path), "caption")
            if suffix in (".yaml", ".yml") and path.is_file():
                text = _from_yaml(yaml.safe_load(_read_text(path)), read_name(picture.name))
                if text is not None:
                    return Caption(text, "yaml")
        except (OSError, yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            _log.warning("%s can't be read and is passed over (%s)", path, " ".join(str(error).split())[:200])
    return Caption(read_name(picture.name), "name")


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


def _read_text(path: Path) -> str:
    """A file's text without byte order mark and without the line end at its end."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    return re.sub(r"\r?\n\Z", "", text)


def _from_yaml(document: Any, name: str) -> str | None:
    """EveryDream 2's image YAML: the main prompt, then its tags, the heavier first; None where it has neither.

    Without a main prompt, the name's caption takes its place, as it does there.
    """
    if not isinstance(document, dict):
        raise ValueError("it is no mapping with main_prompt or tags")
    entries = document.get("caption", document)
    if isinstance(entries, str):
        return entries
    prompt = entries.get("main_prompt")
    if isinstance(prompt, list):
        prompt = prompt[0] if prompt else None
    tags = sorted(_tags(entries.get("tags") or []), key=lambda tag: -tag[1])
    if prompt is None and not tags:
        return None
    words = [name if prompt is None else str(prompt), *(tag for tag, _ in tags)]
    return ", ".join(dict.fromkeys(word.strip() for word in words if word.strip()))


def _tags(tags: list[Any]) -> Iterator[tuple[str, float]]:
    for tag in tags:
        if isinstance(tag, dict):
            yield str(tag["tag"]), float(tag.get("weight", 1.0))
        else:
            yield str(tag), 1.0
