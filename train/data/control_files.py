"""EveryDream's control files: the settings of a folder's images, besides their captions.

    multiply.txt, flip_p.txt, cond_dropout.txt, loss_scale.txt, batch_id.txt     a number or a word, for this folder
    shuffle_tags.txt                                                             exists or not, for this folder
    local.yaml                                                                   any of these, for this folder
    global.yaml                                                                  for this folder and all below it

An image's own YAML wins over local.yaml, that over the .txt files, those over the nearest global.yaml. One setting
replaces the other; the main prompt is for images without a caption; tags add up. Names are read in any case, with .yml
for .yaml, and with the .txt that Windows hides (multiply.txt.txt).
"""

import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import DocumentError, parse_yaml, read_text
from dreamloom.base.text import without_surrogates
from dreamloom.caption.filename import find_controls, read_name
from dreamloom.caption.parts import CaptionParts, Tag, with_tags
from dreamloom.caption.sidecar import Entries, SidecarContent, parse_entries
from dreamloom.train.data.image import ByteRange, ImageSettings, TrainingImage
from dreamloom.train.data.notes import Notes

MAX_MULTIPLY = 10_000
MAX_SCALE = 100
_NUMBER = re.compile(
    r"\+?(\d{1,12}(\.\d{0,30})?|\.\d{1,30})(e[+-]?\d{1,2})?|\+?\d{1,12}/0{0,9}[1-9]\d{0,9}", re.IGNORECASE
)


@dataclass(frozen=True)
class FolderSettings:
    """The settings that control files give to the images of a folder."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """The fields of ImageSettings that are set."""
    prompts: tuple[CaptionParts, ...] = ()
    """The main prompts of images without a caption, one of which is shown at a time."""
    tags: tuple[Tag, ...] = ()
    """Follow each image's own tags."""

    @cached_property
    def image_settings(self) -> ImageSettings:
        """The settings of an image without its own, with defaults for what is not set; one object for all of them."""
        return ImageSettings(**self.values)

    def inherit(self, outer: "FolderSettings") -> "FolderSettings":
        """Adds what the settings of the folder above say, where these say nothing."""
        prompts = self.prompts or outer.prompts
        return FolderSettings({**outer.values, **self.values}, prompts, (*self.tags, *outer.tags))


def read_folder_settings(
    folder: Path, outer: FolderSettings, names: Collection[str], notes: Notes
) -> tuple[FolderSettings, FolderSettings]:
    """Reads the control files of a folder.

    Args:
        folder: the folder.
        outer: what the folders above hand down.
        names: the names of the folder's files.
        notes: is told of a file that is not read, as another says the same.

    Returns:
        The settings of the folder's own images, and those that the folders below it inherit.

    Raises:
        UserError: a control file holds an invalid value.
    """
    files: dict[str, Path] = {}
    for control, found in find_controls(names).items():
        files[control] = folder / found[0]
        for name in found[1:]:
            notes(f"control files that are not read, as there is another {control}", str(folder / name))
    below = _yaml(files, "global").inherit(outer)
    texts = {key: files[f"{key}.txt"] for key in _PARSERS if f"{key}.txt" in files}
    values = {key: _PARSERS[key](_text(file), file) for key, file in texts.items()}
    if "shuffle_tags.txt" in files:
        values["shuffle_tags"] = True
        if _text(files["shuffle_tags.txt"]).strip().lower() in _FALSE:
            notes("shuffle_tags.txt that say no, and count all the same, as they are there", str(folder))
    return _yaml(files, "local").inherit(FolderSettings(values)).inherit(below), below


def parse_settings(entries: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Parses the settings in a mapping: a YAML, or a row of a table.

    Args:
        entries: key → value, as read.
        where: named in errors.

    Returns:
        The fields of ImageSettings that are set.

    Raises:
        UserError: a key is unknown, or its value is invalid.
    """
    if unknown := sorted(set(entries) - set(SETTING_KEYS)):
        near = get_close_matches(unknown[0], ALL_KEYS, n=1)
        hint = f"{unknown[0]} may be {near[0]}" if near else f"the keys are {', '.join(ALL_KEYS)}"
        raise UserError(f"{where} has unknown keys: {', '.join(unknown)}; {hint}.")
    values: dict[str, Any] = {}
    for key, value in entries.items():
        if value is None or key == "rating":
            continue
        if key == "shuffle_tags":
            values[key] = _flag(value, where)
        else:
            values[key] = _PARSERS[key](str(value), where)
    return values


def make_training_image(
    path: Path,
    name: str,
    folder_settings: FolderSettings,
    written: SidecarContent,
    notes: Notes,
    listed: Entries | None = None,
) -> TrainingImage:
    """Makes an image of a file, its sidecars, what a table in its folder says of it, and its folder's settings.

    Args:
        path: the file.
        name: its path inside the training folder.
        folder_settings: the settings of its folder.
        written: what its sidecars hold.
        notes: is told what is odd about the sidecars.
        listed: what a table says, where sidecars say nothing.

    Raises:
        UserError: its YAML holds an invalid value.
    """
    own = Entries(written.filled_prompts, written.tags)
    values = _own_settings(path, written, notes)
    if listed is not None:
        values = {**listed.settings, **values}
        own = own if own.prompts else own.inherit(listed)
    for sentence in written.unreadable:
        notes("sidecars that can't be read and are skipped", f"{path.parent}/{sentence}")
    if written.is_blank:
        notes("blank sidecars, which are no captions", name)
    if written.encoding in ("Windows-1252", "Latin-1"):
        notes("sidecars that are not UTF-8, read as Windows-1252", name)
    settings = folder_settings.image_settings
    settings = replace(settings, **values) if values else settings
    file = str(path)
    source = ByteRange(name, root=sys.intern(file[: -len(name)])) if file.endswith(f"/{name}") else ByteRange(file)
    return TrainingImage(name, source, resolve_captions(path.name, folder_settings, own), settings)


def resolve_captions(name: str, folder_settings: FolderSettings, own: Entries) -> tuple[CaptionParts, ...]:
    """Returns the captions of an image, all with all tags: its own, else its folder's, else that of its name.

    Args:
        name: the file's name.
        folder_settings: the settings of the image's folder.
        own: what is written of this image.
    """
    prompts = tuple(prompt for prompt in own.prompts if not prompt.is_blank) or folder_settings.prompts
    prompts = prompts or (CaptionParts(without_surrogates(read_name(name))),)
    return with_tags(prompts, (*own.tags, *folder_settings.tags))


def parse_number(text: str, where: Path) -> Fraction:
    """Parses a number exactly: 2, 0.025, 1/3, or 1e-05 as programs write it.

    Args:
        text: the number, perhaps with spaces around it.
        where: named in the error.

    Raises:
        UserError: it is not such a number.
    """
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        raise UserError(
            f"{where} holds {text[:40]!r}, which is not a number from 0 on; write one such as 2, 0.025 or 1/3 into it."
        )
    return Fraction(text)


def _own_settings(path: Path, written: SidecarContent, notes: Notes) -> dict[str, Any]:
    """The settings in an image's own YAML. Without a key like EveryDream's, it is another program's."""
    own = written.own
    if own is None or not own.settings:
        return {}
    file = path.with_name(written.yaml_name)
    if own.has_main_prompt or any(map(_may_be_ours, own.settings)):
        return parse_settings(own.settings, file)
    notes("YAMLs of another program, whose other keys are ignored", str(file))
    return {}


def _may_be_ours(key: str) -> bool:
    """Whether a key is near to one that EveryDream alone has, or one of its own in another spelling."""
    spelt = key.casefold().replace(" ", "_").replace("-", "_")
    return spelt in ALL_KEYS or bool(get_close_matches(spelt, (*SETTING_KEYS, "main_prompt"), cutoff=0.8))


def _multiply(text: str, where: Path) -> Fraction:
    value = parse_number(text, where)
    if value > MAX_MULTIPLY:
        raise UserError(
            f"{where} holds {text.strip()}, but an image is shown at most {MAX_MULTIPLY} times per epoch; lower it."
        )
    return value


def _share(text: str, where: Path) -> float:
    value = parse_number(text, where)
    if value > 1:
        raise UserError(f"{where} holds {text.strip()}, but a share is at most 1; lower it.")
    return float(value)


def _scale(text: str, where: Path) -> float:
    """A loss scale may be negative, as in EveryDream: the image is then unlearned."""
    stripped = text.strip()
    value = float(parse_number(stripped.removeprefix("-"), where))
    if value > MAX_SCALE:
        raise UserError(f"{where} holds {stripped}, but a loss is scaled by at most {MAX_SCALE}; lower it.")
    return -value if stripped.startswith("-") else value


def _point(text: str, where: Path) -> tuple[float, float]:
    x, comma, y = text.partition(",")
    if not comma:
        raise UserError(f"{where} has focus: {text[:40]}; write X,Y in shares of the sides, such as focus: 0.5,0.2.")
    return _share(x, where), _share(y, where)


def _length(text: str, where: Path) -> int:
    return int(parse_number(text, where))


def _flag(value: Any, where: Path) -> bool:
    text = str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise UserError(f"{where} has shuffle_tags: {text[:40]}; write true or false.")
    return text in _TRUE


_TRUE, _FALSE = ("true", "yes", "on", "1", "1.0"), ("false", "no", "off", "0", "0.0")


_PARSERS: dict[str, Callable[[str, Path], Any]] = {
    "multiply": _multiply,
    "flip_p": _share,
    "cond_dropout": _share,
    "loss_scale": _scale,
    "max_caption_length": _length,
    "focus": _point,
    "batch_id": lambda text, _: text.strip(),
}
SETTING_KEYS = (*_PARSERS, "shuffle_tags", "rating")
"""The keys of YAML settings; rating, which EveryDream reads with --rated_dataset only, is allowed and ignored."""
ALL_KEYS = (*SETTING_KEYS, "main_prompt", "tags", "caption")


def _yaml(files: Mapping[str, Path], stem: str) -> FolderSettings:
    """Reads local.yml or global.yml, and what the same as .yaml says beyond it; EveryDream 2 has this order, too."""
    settings = FolderSettings()
    for file in (files[name] for name in (f"{stem}.yml", f"{stem}.yaml") if name in files):
        try:
            document = parse_yaml(_text(file), typed=False)
            entries = parse_entries({} if document is None else document)
        except DocumentError as error:
            raise UserError(f"{file} can't be read ({error}); repair or remove it.") from error
        prompts = tuple(prompt for prompt in entries.prompts if not prompt.is_blank)
        settings = settings.inherit(FolderSettings(parse_settings(entries.settings, file), prompts, entries.tags))
    return settings


def _text(file: Path) -> str:
    try:
        return read_text(file)[0]
    except (OSError, DocumentError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{file} can't be read ({reason}); repair or remove it.") from error
