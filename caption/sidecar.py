"""Sidecars: captions in files beside the image, "x_1.txt", "x_1.caption" or "x_1.yaml" for "x_1.jpg".

The first readable one that is not blank wins over the others and over the name, in the order .txt, .caption, YAML and
.json, of which the `caption` or `text` counts, as img2dataset writes it.
(EveryDream 1 has the same order without YAML; EveryDream 2 takes YAML, then .caption, then .txt, and mixes their tags.)
"""

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from dreamloom.base.files.folder_names import FolderNames, fold_name
from dreamloom.base.files.image_types import IMAGE_EXTENSIONS
from dreamloom.base.tables.documents import DocumentError, parse_json, parse_yaml, read_text
from dreamloom.base.tables.tables import caption_texts, written_list
from dreamloom.base.text import without_surrogates
from dreamloom.caption.filename import find_controls, read_name
from dreamloom.caption.parts import CaptionParts, Tag, with_tags
from dreamloom.scrape.datasets.sidecar_files import SIDECARS, find_sidecars

_log = logging.getLogger(__name__)

Origin = Literal["txt", "caption", "yaml", "json", "name"]


@dataclass(frozen=True)
class Caption:
    """A caption and its origin."""

    text: str
    """May be empty."""
    origin: Origin
    blank_sidecar: bool = False
    """Whether there is a sidecar, and it is blank."""
    encoding: str = field(default="UTF-8", compare=False)
    """That of its sidecar."""


@dataclass(frozen=True)
class Entries:
    """What a YAML of EveryDream's says, or a row of a table."""

    prompts: tuple[CaptionParts, ...] = ()
    """Captions without their tags, one of which is shown at a time; there may be none, and they may be blank."""
    tags: tuple[Tag, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The other keys."""
    has_main_prompt: bool = False
    """Whether it has the key main_prompt, by which EveryDream's YAML is known from other programs'."""

    def inherit(self, other: "Entries") -> "Entries":
        """Adds what another says where this says nothing; tags add up."""
        settings = {**other.settings, **self.settings}
        has_main_prompt = self.has_main_prompt or other.has_main_prompt
        return Entries(self.prompts or other.prompts, (*self.tags, *other.tags), settings, has_main_prompt)


@dataclass(frozen=True)
class SidecarContent:
    """What the sidecars of an image say."""

    prompts: tuple[CaptionParts, ...] = ()
    """The lines of a .txt, each a caption, as OneTrainer and SimpleTuner have it; the text of a .caption; or the main
    prompts of a YAML, without its tags; none: there is none of these."""
    text: str = ""
    """The whole text of a text file."""
    tags: tuple[Tag, ...] = ()
    """Tags of a YAML file, in order."""
    origin: Origin = "name"
    """Origin of prompts and tags; name: there are none."""
    own: Entries | None = None
    """All that the image's YAML says, regardless of the caption's origin; None: there is none."""
    yaml_name: str = ""
    """The name of the YAML."""
    encoding: str = "UTF-8"
    """Encoding of the file of prompts and tags."""
    unreadable: tuple[str, ...] = ()
    """Files that can't be read, each with the reason."""

    @property
    def is_blank(self) -> bool:
        """Whether there is a caption, and it is blank."""
        return bool(self.prompts) and not self.tags and all(prompt.is_blank for prompt in self.prompts)

    @property
    def filled_prompts(self) -> tuple[CaptionParts, ...]:
        """The prompts that are not blank."""
        return tuple(prompt for prompt in self.prompts if not prompt.is_blank)


def read_caption(image: Path, siblings: FolderNames | None = None) -> Caption:
    """Reads the caption of an image: from its sidecar, else from its name. A blank sidecar is none.

    Never fails: an unreadable sidecar is skipped with a warning. Bytes that are not UTF-8 are read as Windows-1252.

    Args:
        image: The image's path.
        siblings: The names of the files in the image's folder, if known.
    """
    content = read_sidecars(image, siblings)
    if content.is_blank:
        return Caption(read_name(image.name), "name", blank_sidecar=True)
    return Caption(resolve_caption(image.name, content), content.origin, encoding=content.encoding)


def resolve_caption(name: str, content: SidecarContent) -> str:
    """Returns the caption of an image with this name and these sidecars: all of a text file; else the first of several.

    So the lines of a .txt stay together through a project, and are several captions again in its training folder.
    """
    if content.is_blank:
        return content.prompts[0].text
    if content.text and content.origin in ("txt", "caption"):
        return content.text
    # without a main prompt, the name's caption takes its place, as in EveryDream 2
    prompts = content.filled_prompts or (CaptionParts(read_name(name)),)
    return with_tags(prompts, content.tags)[0].caption


def read_sidecars(image: Path, siblings: FolderNames | None = None) -> SidecarContent:
    """Reads the sidecars of an image; logs a warning for each that is unreadable.

    Args:
        image: The image's path.
        siblings: The names of the files in the image's folder, if known.
    """
    content = parse_sidecars(str(image.parent), image.name, SIDECARS, siblings)
    for sentence in content.unreadable:
        _log.warning("%s/%s", image.parent, sentence)
    return content


def stray_texts(names: FolderNames) -> list[str]:
    """Lists the text files among a folder's files that are no image's sidecar and no control file."""
    suffixes = [suffix for suffix in SIDECARS if suffix != ".json"]  # which may be anything
    if names.other_suffixes.isdisjoint(suffixes):
        return []
    splits = ((name, *os.path.splitext(name)) for name in names)
    texts = {
        name
        for name, stem, suffix in splits
        if suffix.lower() in suffixes and (suffix not in suffixes or stem not in names.image_stems)
    }
    texts = texts.difference(*find_controls(texts).values())
    if not texts:
        return []
    images = (name for name in names if os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS)
    return sorted(texts - {sidecar for image in images for _, sidecar in find_sidecars(image, names)})


def parse_sidecars(
    folder: str, name: str, suffixes: Sequence[str] = SIDECARS, siblings: FolderNames | None = None
) -> SidecarContent:
    """Reads the sidecars of an image, without warnings.

    Args:
        folder: The image's folder.
        name: The image's name.
        suffixes: Of the files to read.
        siblings: The names of the files in the image's folder, if known.
    """
    if siblings is None:
        siblings = FolderNames(os.listdir(folder) if os.path.isdir(folder) else ())
    content, unreadable = SidecarContent(), []
    for suffix, file in find_sidecars(name, siblings):
        if suffix not in suffixes or not os.path.isfile(f"{folder}/{file}"):
            continue
        try:
            text, encoding = read_text(f"{folder}/{file}")
            if suffix in (".yaml", ".yml"):
                content = _add_yaml(content, parse_entries(parse_yaml(text, typed=False)), file, encoding)
            elif suffix == ".json":
                is_own = fold_name(file).startswith(fold_name(f"{os.path.splitext(name)[0]}."))
                has_some = content.filled_prompts or content.tags
                content = content if has_some else _add_json(content, text, encoding, is_own)
            elif not content.filled_prompts:
                found = _of_text(text, "txt" if suffix == ".txt" else "caption", encoding)
                content = content if found.is_blank and content.prompts else found
        except (OSError, DocumentError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            unreadable.append(f"{file} can't be read and is skipped ({reason})")
    return replace(content, unreadable=tuple(unreadable)) if unreadable else content


def content_of(name: str, text: str | None, settings: str | None) -> SidecarContent:
    """Returns what sidecars say whose texts are known.

    Args:
        name: the image's name.
        text: of its .txt; None: there is none.
        settings: of its .yaml; None: there is none.

    Raises:
        DocumentError: the YAML can't be read.
    """
    content = SidecarContent() if text is None else _of_text(text, "txt", "UTF-8")
    if settings is None:
        return content
    return _add_yaml(content, parse_entries(parse_yaml(settings, typed=False)), f"{Path(name).stem}.yaml", "UTF-8")


def _of_text(text: str, origin: Literal["txt", "caption"], encoding: str) -> SidecarContent:
    lines = [line for line in text.splitlines() if line.strip()] if origin == "txt" else []
    prompts = tuple(map(CaptionParts, lines or [text]))
    return SidecarContent(prompts, text=text if text.strip() else "", origin=origin, encoding=encoding)


def _add_yaml(content: SidecarContent, entries: Entries, file: str, encoding: str) -> SidecarContent:
    """Adds x.yaml, or x.yml to it. Its caption counts where no text file has one."""
    own = content.own.inherit(entries) if content.own else entries
    added = replace(content, own=own, yaml_name=content.yaml_name or file)
    if content.filled_prompts and content.origin != "yaml":
        return added
    if own.tags or any(not prompt.is_blank for prompt in own.prompts) or (own.prompts and not content.prompts):
        return replace(added, prompts=own.prompts, tags=own.tags, origin="yaml", encoding=encoding)
    return added


def _add_json(content: SidecarContent, text: str, encoding: str, is_own: bool) -> SidecarContent:
    """Adds the caption of x.json; JSON without one is another program's.

    One that is not called x has a caption of x's only if it is of Google Photos, which calls it otherwise.
    """
    document = parse_json(text)
    by_lower = {key.lower(): value for key, value in document.items()} if isinstance(document, dict) else {}
    cells = [by_lower[key] for key in ("caption", "text", "captions") if key in by_lower and is_own]
    if isinstance(document, dict) and {"title", "photoTakenTime"} <= document.keys():  # of Google Photos
        cells += [document["description"]] if document.get("description") else []
    prompts = next(filter(None, map(caption_texts, cells)), [])
    if prompts or (cells and not content.prompts and all(cell == "" for cell in cells)):
        return replace(content, prompts=tuple(map(CaptionParts, prompts or [""])), origin="json", encoding=encoding)
    return content


def parse_entries(document: Any) -> Entries:
    """Parses EveryDream 2's YAML, or a row of a table: main prompts or captions, tags, and other keys.

    All keys may stand under `caption`, too. A main prompt is whole; the commas of a `caption` part its tags.

    Args:
        document: as `dreamloom.base.tables.documents.parse_yaml` reads it without types.

    Raises:
        DocumentError: it is no such mapping.
    """
    if not isinstance(document, dict):
        raise DocumentError("it is not a mapping with main_prompt or tags")
    entries = {str(key): value for key, value in document.items()}
    caption = entries.pop("caption", None)
    if isinstance(caption, dict):
        entries |= {str(key): value for key, value in caption.items()}
        caption = entries.pop("caption", None)
    has_main_prompt = "main_prompt" in entries
    main_prompts = _texts(entries.pop("main_prompt", None), "main_prompt")
    prompts = [CaptionParts(text, whole=True) for text in main_prompts]
    prompts = prompts or [CaptionParts(text) for text in _texts(caption, "caption")]
    return Entries(tuple(prompts), tuple(_tags(entries.pop("tags", None))), entries, has_main_prompt)


_SCALARS = (str, int, float, NoneType)
"""What a text is written as; YAML's tags make bytes, pairs and sets."""


def _texts(value: Any, key: str) -> list[str]:
    """Returns a text, or those of a list; null is none."""
    texts = [each for each in (value if isinstance(value, list) else [value]) if each is not None]
    if not all(isinstance(text, _SCALARS) for text in texts):
        raise DocumentError(f"{key} is neither a text nor a list of texts")
    return [without_surrogates(str(text)) for text in texts]


def _tags(value: Any) -> Iterable[Tag]:
    """Parses tags: a list of texts and of mappings with a weight, or one text with commas; null is none."""
    if value is None or isinstance(value, str):
        value = written_list(value or "") or (value or "").split(",")
    if not isinstance(value, list):
        raise DocumentError("tags are neither a list nor a text")
    for each in value:
        tag, weight = (each["tag"], each.get("weight")) if isinstance(each, dict) and "tag" in each else (each, None)
        if not isinstance(tag, _SCALARS) or (isinstance(each, dict) and not each.keys() <= {"tag", "weight"}):
            raise DocumentError("a tag is neither a text nor {tag: …, weight: …}")
        if tag is not None and str(tag).strip():
            yield without_surrogates(str(tag)), _weight(weight, str(tag))


def _weight(value: Any, tag: str) -> float:
    if value is None or value == "":
        return 1.0
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not math.isfinite(weight):
        raise DocumentError(f"the weight of {tag[:40]} is not a number")
    return weight
