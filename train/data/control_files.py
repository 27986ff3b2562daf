"""EveryDream's control files: the settings of a folder's images, besides their captions.

    multiply.txt, flip_p.txt, cond_dropout.txt, loss_scale.txt, batch_id.txt     a number or a word, for this folder
    shuffle_tags.txt                                                             exists or not, for this folder
    local.yaml                                                                   any of these, for this folder
    global.yaml                                                                  for this folder and all below it

An image's own YAML wins over local.yaml, that over the .txt files, those over the nearest global.yaml. One setting
replaces the other; the main prompt is for images without a sidecar; tags add up.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from dreamloom.base.errors import UserError
from dreamloom.caption.filename import read_name
from dreamloom.caption.sidecar import SidecarContent, join_tags, parse_yaml
from dreamloom.train.data.image import ByteRange, ImageSettings, TrainingImage

MAX_MULTIPLY = 10_000
MAX_SCALE = 100
_NUMBER = re.compile(r"(\d{1,12}(\.\d{0,30})?|\.\d{1,30})(e[+-]?\d{1,2})?|\d{1,12}/0{0,9}[1-9]\d{0,9}", re.IGNORECASE)

Tags = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class FolderSettings:
    """The settings that control files give to the images of a folder."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """The fields of ImageSettings that are set."""
    prompt: str | None = None
    """The main prompt of images without a sidecar."""
    tags: Tags = ()
    """Follow each image's own tags."""

    @property
    def image_settings(self) -> ImageSettings:
        """The settings of an image without its own, with defaults for what is not set."""
        return ImageSettings(**self.values)

    def inherit(self, outer: "FolderSettings") -> "FolderSettings":
        """Adds what the settings of the folder above say, where these say nothing."""
        prompt = outer.prompt if self.prompt is None else self.prompt
        return FolderSettings({**outer.values, **self.values}, prompt, (*self.tags, *outer.tags))


def read_folder_settings(
    folder: Path, outer: FolderSettings, names: Collection[str]
) -> tuple[FolderSettings, FolderSettings]:
    """Reads the control files of a folder.

    Args:
        folder: the folder.
        outer: what the folders above hand down.
        names: the names of the folder's files.

    Returns:
        The settings of the folder's own images, and those that the folders below it inherit.

    Raises:
        UserError: a control file holds an invalid value.
    """
    below = _yaml(folder, "global", names).inherit(outer)
    files = {key: folder / f"{key}.txt" for key in _PARSERS if f"{key}.txt" in names}
    values = {key: _PARSERS[key](_text(file), file) for key, file in files.items()}
    if "shuffle_tags.txt" in names:
        values["shuffle_tags"] = True
    return _yaml(folder, "local", names).inherit(FolderSettings(values)).inherit(below), below


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
        raise UserError(f"{where} has unknown keys: {', '.join(unknown)}; the keys are {', '.join(SETTING_KEYS)}.")
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
    path: Path, name: str, folder_settings: FolderSettings, written: SidecarContent
) -> TrainingImage:
    """Makes an image of a file, its sidecars and its folder's settings.

    Args:
        path: the file.
        name: its path inside the training folder.
        folder_settings: the settings of its folder.
        written: what its sidecars hold.

    Raises:
        UserError: its YAML holds an invalid value.
    """
    settings = replace(folder_settings.image_settings, **_own_settings(path, written))
    caption = resolve_caption(read_name(path.name), folder_settings, written)
    tag_weights = weights_of((*written.tags, *folder_settings.tags))
    return TrainingImage(name, ByteRange(path), caption, settings, tag_weights)


def weights_of(tags: Tags) -> Tags:
    """Keeps the tags whose weight is not 1."""
    return tuple((tag.strip(), weight) for tag, weight in tags if weight != 1)


def resolve_caption(name: str, folder_settings: FolderSettings, written: SidecarContent) -> str:
    """Joins the main prompt and all tags; the prompt is the sidecar's, else the folder's, else the file name's.

    Args:
        name: the caption in the file name.
        folder_settings: the settings of the image's folder.
        written: what the image's sidecars hold.
    """
    prompts = (written.prompt, folder_settings.prompt, name)
    prompt = next(prompt for prompt in prompts if prompt is not None)
    tags = (*written.tags, *folder_settings.tags)
    if not tags:
        return prompt
    return join_tags(prompt, [tag for tag in tags if tag[0].strip() not in map(str.strip, prompt.split(","))])


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
            f"{where} holds {text[:40]!r}, which is not a number; write one such as 2, 0.025 or 1/3 into it."
        )
    return Fraction(text)


def _own_settings(path: Path, written: SidecarContent) -> dict[str, Any]:
    """The settings in an image's own YAML; none where it is not EveryDream's."""
    if not written.settings or not any(key in SETTING_KEYS for key in written.settings):
        return {}
    names = (path.with_suffix(suffix) for suffix in (".yaml", ".yml"))
    return parse_settings(written.settings, next(name for name in names if name.is_file()))


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


def _length(text: str, where: Path) -> int:
    return int(parse_number(text, where))


def _flag(value: Any, where: Path) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise UserError(f"{where} has shuffle_tags: {text[:40]}; write true or false.")
    return text == "true"


_PARSERS: dict[str, Callable[[str, Path], Any]] = {
    "multiply": _multiply,
    "flip_p": _share,
    "cond_dropout": _share,
    "loss_scale": _scale,
    "max_caption_length": _length,
    "batch_id": lambda text, _: text.strip(),
}
SETTING_KEYS = (*_PARSERS, "shuffle_tags", "rating")
"""The keys of YAML settings; rating, which EveryDream reads with --rated_dataset only, is allowed and ignored."""


def _yaml(folder: Path, stem: str, names: Collection[str]) -> FolderSettings:
    """Reads local.yml or global.yml, else the same as .yaml, as EveryDream 2 looks for them."""
    name = next((f"{stem}{suffix}" for suffix in (".yml", ".yaml") if f"{stem}{suffix}" in names), None)
    if name is None:
        return FolderSettings()
    file = folder / name
    try:
        prompt, tags, entries = parse_yaml(_text(file))
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} can't be read ({reason}); repair or remove it.") from error
    return FolderSettings(parse_settings(entries, file), prompt, tags)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}); repair or remove it.") from error
