"""EveryDream's control files: what is said of a folder's images beside their captions.

    multiply.txt, flip_p.txt, cond_dropout.txt, loss_scale.txt, batch_id.txt     a number, or a word: this folder
    shuffle_tags.txt                                                             is there, or not: this folder
    local.yaml                                                                   any of these: this folder
    global.yaml                                                                  this folder and all below it

An image's own YAML says more than local.yaml, that more than the .txt files, those more than the nearest global.yaml.
A later number replaces an earlier one; a main prompt serves images that have no sidecar; tags add up.
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
from dreamloom.caption.sidecar import Written, joined, parse_yaml
from dreamloom.train.data.image import ByteRange, ImageSettings, TrainingImage

MAX_MULTIPLY = 10_000
MAX_SCALE = 100
_NUMBER = re.compile(r"(\d{1,12}(\.\d{0,30})?|\.\d{1,30})(e[+-]?\d{1,2})?|\d{1,12}/0{0,9}[1-9]\d{0,9}", re.IGNORECASE)

Tags = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class FolderSettings:
    """What holds for the images of a folder."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """Of Settings' fields, those that were said."""
    prompt: str | None = None
    """For images without a sidecar."""
    tags: Tags = ()
    """After each image's own."""

    @property
    def settings(self) -> ImageSettings:
        """With defaults for what was not said."""
        return ImageSettings(**self.values)

    def inherit(self, outer: "FolderSettings") -> "FolderSettings":
        """These, and what the outer ones say besides."""
        prompt = outer.prompt if self.prompt is None else self.prompt
        return FolderSettings({**outer.values, **self.values}, prompt, (*self.tags, *outer.tags))


def read_folder_settings(
    folder: Path, outer: FolderSettings, names: Collection[str]
) -> tuple[FolderSettings, FolderSettings]:
    """The controls of a folder's own images, and those that the folders below it start from.

    Args:
        outer: what the folders above hand down.
        names: of the folder's files.

    Raises:
        UserError: a control file says what can't be.
    """
    below = _yaml(folder, "global", names).inherit(outer)
    files = {key: folder / f"{key}.txt" for key in _READERS if f"{key}.txt" in names}
    said = {key: _READERS[key](_text(file), file) for key, file in files.items()}
    if "shuffle_tags.txt" in names:
        said["shuffle_tags"] = True
    return _yaml(folder, "local", names).inherit(FolderSettings(said)).inherit(below), below


def parse_settings(entries: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The settings in a mapping: a YAML's, or a manifest's row.

    Raises:
        UserError: a key is unknown, or its value can't be.
    """
    if unknown := sorted(set(entries) - set(SETTING_KEYS)):
        raise UserError(
            f"{where} has {', '.join(unknown)}, which says nothing here; the keys are {', '.join(SETTING_KEYS)}."
        )
    values: dict[str, Any] = {}
    for key, value in entries.items():
        if value is None or key == "rating":
            continue
        if key == "shuffle_tags":
            values[key] = _flag(value, where)
        else:
            values[key] = _READERS[key](str(value), where)
    return values


def make_training_image(path: Path, name: str, controls: FolderSettings, written: Written) -> TrainingImage:
    """An image in a file of its own, with what its sidecars and its folder's controls say.

    Raises:
        UserError: its YAML says what can't be.
    """
    settings = replace(controls.settings, **_said(path, written))
    tags = (*written.tags, *controls.tags)
    caption = resolve_caption(read_name(path.name), controls, written)
    return TrainingImage(name, ByteRange(path), caption, settings, tuple((tag.strip(), w) for tag, w in tags if w != 1))


def resolve_caption(name: str, controls: FolderSettings, written: Written) -> str:
    """The main prompt of the sidecar, else of the folder's YAML, else the name's caption; behind it all tags."""
    prompts = (written.prompt, controls.prompt, name)
    prompt = next(prompt for prompt in prompts if prompt is not None)
    tags = (*written.tags, *controls.tags)
    if not tags:
        return prompt
    return joined(prompt, [tag for tag in tags if tag[0].strip() not in map(str.strip, prompt.split(","))])


def parse_number(text: str, where: Path) -> Fraction:
    """2, 0.025, 1/3, or as programs write small ones (1e-05), exact.

    Raises:
        UserError: it is not such a number.
    """
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        raise UserError(
            f"{where} holds {text[:40]!r}, which is not a number such as 2, 0.025 or 1/3; write one into it."
        )
    return Fraction(text)


def _said(path: Path, written: Written) -> dict[str, Any]:
    """The settings in an image's own YAML; none in one that is not EveryDream's."""
    if not written.settings or not any(key in SETTING_KEYS for key in written.settings):
        return {}
    names = (path.with_suffix(suffix) for suffix in (".yaml", ".yml"))
    return parse_settings(written.settings, next(name for name in names if name.is_file()))


def _multiply(text: str, where: Path) -> Fraction:
    value = parse_number(text, where)
    if value > MAX_MULTIPLY:
        raise UserError(
            f"{where} holds {text.strip()}, more than the {MAX_MULTIPLY} times an epoch that are allowed; lower it."
        )
    return value


def _share(text: str, where: Path) -> float:
    value = parse_number(text, where)
    if value > 1:
        raise UserError(f"{where} holds {text.strip()}, and a share is at most 1; lower it.")
    return float(value)


def _scale(text: str, where: Path) -> float:
    """May be negative, as in EveryDream: what is shown is then unlearned."""
    bare = text.strip()
    value = float(parse_number(bare.removeprefix("-"), where))
    if value > MAX_SCALE:
        raise UserError(f"{where} holds {bare}, and a loss is scaled by at most {MAX_SCALE}; lower it.")
    return -value if bare.startswith("-") else value


def _length(text: str, where: Path) -> int:
    return int(parse_number(text, where))


def _flag(value: Any, where: Path) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise UserError(f"{where} says shuffle_tags: {text[:40]}; write true or false.")
    return text == "true"


_READERS: dict[str, Callable[[str, Path], Any]] = {
    "multiply": _multiply,
    "flip_p": _share,
    "cond_dropout": _share,
    "loss_scale": _scale,
    "max_caption_length": _length,
    "batch_id": lambda text, _: text.strip(),
}
SETTING_KEYS = (*_READERS, "shuffle_tags", "rating")
"""What may be said in YAML; a rating says nothing without EveryDream's --rated_dataset, which is not there here."""


def _yaml(folder: Path, stem: str, names: Collection[str]) -> FolderSettings:
    """local.yml or global.yml, else the same as .yaml, as EveryDream 2 looks for them."""
    name = next((f"{stem}{suffix}" for suffix in (".yml", ".yaml") if f"{stem}{suffix}" in names), None)
    if name is None:
        return FolderSettings()
    file = folder / name
    try:
        prompt, tags, entries = parse_yaml(_text(file))
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} can't be read ({reason}); mend it, or take it away.") from error
    return FolderSettings(parse_settings(entries, file), prompt, tags)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}); mend it, or take it away.") from error
