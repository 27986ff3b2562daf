"""`dreamloom init`: writes a project.yaml with comments, from flags and from answers."""

import json
import os
import sys
from pathlib import Path
from typing import Literal

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_text
from dreamloom.base.files.listing import count_images
from dreamloom.base.tables.documents import parse_yaml
from dreamloom.flows.project.project import Project

_TEMPLATE = """\
# What is trained, and on what. Paths are relative to this file. `dreamloom plan` says what it would do, and
# `dreamloom run` does it; change anything and run again: only what depends on the change is made again.
name: {name}
workspace: work # all that is made lies here; your images are copied, never changed

sources:
  subject: # what the model is to learn; ten images will do, fifty are better
    kind: folder
    role: training
    path: {images}
    # Captions are .txt files beside the images, or names that read like one ("a red car on grass.jpg"). BLIP describes
    # the others, and calls it by a word that it knows, such as "a man": put in that word, and the name comes instead.
    edit: {{replace: {{a man: {called}, a woman: {called}, a person: {called}}}}}
{ground_truth}
balance:
  ratio: 1 # images of ground truth shown for each training image
  held_out: 0.1 # of each source, never trained on, to measure what is learned and forgotten; five images and more
train:
  base: {base}
{preset}  epochs: 40 # more, if it learned too little; fewer, if samples look burnt
  sample_prompts: [{prompt}, a photo of a lighthouse]
"""
_GROUND_TRUTH = """\
  kept: # what the model is to keep: real images of the same kind of thing, and of the world at large
    kind: folder
    role: ground_truth
    path: {path}
"""
_NO_GROUND_TRUTH = """\
  # Without ground truth nothing is rehearsed, and nobody knows what was forgotten. A few thousand photos of the world:
  # kept: {kind: coco, role: ground_truth, annotations: coco/captions_val2017.json, images: coco/val2017}
"""


def init(
    folder: Path = Path(),
    *,
    images: Path | None = None,
    called: str | None = None,
    ground_truth: Path | None = None,
    base: str = "stable-diffusion-v1-5/stable-diffusion-v1-5",
    preset: Literal["8gb", "12gb", "24gb", "80gb"] | None = None,
) -> None:
    """Write a project.yaml with comments, which runs. Asks for what the flags leave open, in a terminal.

    Parameters
    ----------
    folder
        Folder for project.yaml; made where it is missing.
    images
        Folder of the images that the model is to learn.
    called
        What they show is called in captions and prompts: a word that the model does not know yet.
    ground_truth
        Folder of images that it is to keep.
    base
        Model that is fine-tuned: a diffusers folder, a .safetensors or .ckpt file, or a hub ID (owner/name).
    preset
        Memory of the GPU, for settings that fit it.
    """
    file = folder.expanduser() / "project.yaml"
    if file.exists():
        raise UserError(f"{file} is there already; edit it, or name another folder.")
    if images is None:
        images = Path(_ask("Folder of the images to learn", "--images"))
        ground_truth = ground_truth or _path_or_none(_ask("Folder of images to keep (empty: none)", "--ground-truth"))
    _check_images(images, "--images")
    if ground_truth is not None:
        _check_images(ground_truth, "--ground-truth")
    _check_places(file.parent, images, ground_truth)
    called = called or images.expanduser().absolute().name
    text = _fill(file.parent, images, called, ground_truth, base, preset)
    Project.model_validate(parse_yaml(text))
    commit_text(file, text)
    print(f"{file} is written. Look at it, then:\n  dreamloom plan {file}\n  dreamloom run {file}")


def _fill(folder: Path, images: Path, called: str, ground_truth: Path | None, base: str, preset: str | None) -> str:
    kept = _NO_GROUND_TRUTH if ground_truth is None else _GROUND_TRUTH.format(path=_path(ground_truth, folder))
    return _TEMPLATE.format(
        name=_quoted(called),
        called=_quoted(called),
        images=_path(images, folder),
        ground_truth=kept,
        base=_path(Path(base), folder) if Path(base).expanduser().exists() else _quoted(base),
        preset=f"  preset: {preset}\n" if preset else "  # preset: 12gb # for a GPU of that size: 8gb to 80gb\n",
        prompt=_quoted(f"a photo of {called}"),
    )


def _path(path: Path, folder: Path) -> str:
    """Returns a path as YAML: relative to the project's folder where it lies below it."""
    absolute = path.expanduser().absolute()
    inside = absolute.is_relative_to(folder.absolute())
    return _quoted(os.path.relpath(absolute, folder.absolute()) if inside else str(absolute))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # JSON's strings are YAML's


def _check_images(folder: Path, flag: str) -> None:
    if not folder.expanduser().is_dir():
        raise UserError(f"{flag} {folder} is not a folder; name the folder that holds the images.")
    if not count_images(folder.expanduser()):
        raise UserError(f"{flag} {folder} holds no images; name the folder that holds them.")


def _check_places(folder: Path, images: Path, ground_truth: Path | None) -> None:
    """Raises UserError where a project would lie among its own images, or keeps the images that it learns."""
    for flag, source in (("--images", images), ("--ground-truth", ground_truth)):
        if source is not None and folder.resolve().is_relative_to(source.expanduser().resolve()):
            raise UserError(f"{folder} lies in {flag} {source}, so its output would be taken in; name another folder.")
    if ground_truth is not None and ground_truth.expanduser().resolve() == images.expanduser().resolve():
        raise UserError(f"--ground-truth {ground_truth} is the folder of --images, too; name another one.")


def _path_or_none(answer: str) -> Path | None:
    return Path(answer) if answer else None


def _ask(question: str, flag: str) -> str:
    if not sys.stdin.isatty():
        raise UserError(f"{flag} is missing; see dreamloom init --help.")
    return input(f"{question}: ").strip()
