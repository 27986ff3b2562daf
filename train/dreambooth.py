"""DreamBooth (Ruiz et al. 2022, arXiv 2208.12242), for those who want it: a training folder of subjects and classes.

What goes in is a folder with a folder for each subject: its images, `instance.txt` (a photo of sks dog) and
`class.txt` (a photo of a dog). What comes out is a training folder, as train reads any:

    <target>/<subject>/          the images, linked; local.yaml has the instance prompt, multiply.txt the balance
             <subject> class/    what the base model draws of the class prompt; loss_scale.txt is the prior-loss weight

An epoch shows the class as often as the subject. docs/dreambooth.md says why ground truth serves better.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit_json, commit_text, fingerprint, link_or_copy, lock
from dreamloom.base.image_types import DECODED_EXTENSIONS
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import NO_RECIPE, StageConfig, recipe
from dreamloom.caption.sidecar import decoded
from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.model.check import check_base_model

MARK = ".dreambooth.json"
"""The file that says how a folder was made; a folder without it is not ours to write into."""


class DreamBoothConfig(StageConfig):
    """Makes a training folder of subjects, with images of their classes that the base model draws."""

    base: str = Field(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        description="The model to start from: a diffusers folder, a .safetensors or .ckpt, or a hub id (owner/name).",
    )
    num_class_images: Annotated[int, NO_RECIPE] = Field(
        200, ge=1, le=100_000, description="Pictures that are drawn of each class."
    )
    prior_loss_weight: Annotated[float, NO_RECIPE] = Field(
        1.0, ge=0, le=100, description="What the losses of class images are multiplied by."
    )
    resolution: int = Field(512, ge=32, le=4096, description="Side of the drawn images, in pixels.")
    sample_batch_size: Annotated[int, NO_RECIPE] = Field(4, ge=1, le=4096, description="Pictures drawn at a time.")
    sample_steps: int = Field(25, ge=1, le=1000, description="Denoising steps an image.")
    guidance_scale: float = Field(7.5, ge=0, le=100, description="Classifier-free guidance of the images.")
    seed: int = Field(0, ge=0, lt=2**63, description="The noise derives from it.")
    device: Annotated[str, NO_RECIPE] = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")


@dataclass(frozen=True)
class Subject:
    """Something to learn."""

    name: str
    pictures: tuple[Path, ...]
    instance: str
    """What its images are called."""
    kind: str
    """What others of its kind are called."""


@dataclass(frozen=True)
class DreamBoothSummary:
    """What is in the training folder."""

    subjects: int
    pictures: int
    class_pictures: int
    drawn: int
    """Of the class images, those that were not there before."""


def dreambooth(
    subjects: Path | str, target: Path | str, config: DreamBoothConfig, progress: Progress = silent
) -> DreamBoothSummary:
    """Makes a training folder; class images that are there already are not drawn again.

    Raises:
        UserError: a subject lacks something, the model is not there, or `target` holds something else.
    """
    found, target = read_subjects(Path(subjects)), Path(target)
    check_base_model(config.base)
    models = {"base": fingerprint(config.base)}
    made = recipe("dreambooth", 1, config, models=models)
    classes = _check_target(target, made, found)
    drawn = there = 0
    with lock(target):
        commit_json(target / MARK, {"recipe": made, "classes": classes})
        for subject in found:
            own, others = target / subject.name, target / f"{subject.name} class"
            _link(subject, own)
            _tell(own, subject.instance)
            _tell(others, subject.kind)
            commit_text(others / "loss_scale.txt", f"{config.prior_loss_weight:g}\n")
            drawn += _draw_class(subject, others, config, progress)
            count = len(list(others.glob("[0-9]*.png")))  # an earlier call may have wanted more
            _show(own, Fraction(count, len(subject.pictures)))
            _show(others, Fraction(len(subject.pictures), count))
            there += count
    pictures = sum(len(subject.pictures) for subject in found)
    return DreamBoothSummary(len(found), pictures, there, drawn)


def read_subjects(folder: Path) -> list[Subject]:
    """The subjects in a folder.

    Raises:
        UserError: there is none, or one lacks its images or prompts.
    """
    inner = sorted(path for path in folder.glob("[!.]*") if path.is_dir()) if folder.is_dir() else []
    if not inner:
        raise UserError(f"{folder} holds no subjects: it needs a folder of images for each.")
    return [_read_subject(path) for path in inner]


def _read_subject(folder: Path) -> Subject:
    pictures = tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in DECODED_EXTENSIONS))
    if not pictures:
        raise UserError(f"{folder} holds no images; put those of the subject into it.")
    prompts = []
    for name, example in (("instance.txt", "a photo of sks dog"), ("class.txt", "a photo of a dog")):
        file = folder / name
        text = decoded(file.read_bytes()).strip() if file.is_file() else ""
        if not text:
            raise UserError(f"{file} is not there or empty; write a prompt into it, such as: {example}")
        prompts.append(text)
    return Subject(folder.name, pictures, *prompts)


def _check_target(target: Path, made: str, subjects: Sequence[Subject]) -> dict[str, str]:
    """Subject → the prompt that its class is drawn of, with those of former calls."""
    wanted = {subject.name: subject.kind for subject in subjects}
    if not target.exists() or not any(target.iterdir()):
        return wanted
    try:
        stored = json.loads((target / MARK).read_text(encoding="utf-8"))
        before, classes = stored["recipe"], dict(stored["classes"])
    except (OSError, ValueError, KeyError):
        raise UserError(f"{target} holds something that is not a folder of DreamBooth's; name a new one.") from None
    if before != made:
        raise UserError(f"{target} was made with other settings or another model; name a new folder.")
    for name, kind in wanted.items():
        if classes.get(name, kind) != kind:
            raise UserError(
                f"{target / f'{name} class'} shows {classes[name]!r}, and {name}/class.txt now says {kind!r}; put it "
                "back, or name a new folder."
            )
    return classes | wanted


def _link(subject: Subject, folder: Path) -> None:
    for picture in subject.pictures:
        link_or_copy(picture, folder / picture.name)


def _tell(folder: Path, prompt: str) -> None:
    commit_text(folder / "local.yaml", yaml.safe_dump({"main_prompt": prompt}, allow_unicode=True))


def _show(folder: Path, often: Fraction) -> None:
    """Of subject and class, the one with fewer images shows them more often than once an epoch."""
    commit_text(folder / "multiply.txt", f"{float(max(Fraction(1), often)):.9g}\n")


def _draw_class(subject: Subject, folder: Path, config: DreamBoothConfig, progress: Progress) -> int:
    """Draws what is missing; image n comes from noise n, whichever are drawn with it."""
    missing = [number for number in range(config.num_class_images) if not (folder / f"{number:05d}.png").exists()]
    if missing:
        from dreamloom.train.evaluate.sample import draw_each  # torch from here on

        shared = set(DreamBoothConfig.model_fields) & set(TrainConfig.model_fields)
        values = {name: getattr(config, name) for name in shared}
        values |= {"seed": stream_key(config.seed, "class", subject.name) >> 1, "bucket_reso_steps": 8}
        values |= {"batch_size": config.sample_batch_size}
        files = {number: folder / f"{number:05d}.png" for number in missing}
        draw_each(subject.kind, files, TrainConfig.model_validate(values), progress)
    return len(missing)
