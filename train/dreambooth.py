"""DreamBooth (Ruiz et al. 2022, arXiv 2208.12242): a training folder of subjects and class images.

The input is a folder with a subfolder for each subject: its images, `instance.txt` (a photo of sks dog) and `class.txt`
(a photo of a dog). The output is an ordinary training folder:

    <target>/<subject>/          the images, copied; local.yaml has the instance prompt, multiply.txt the balance
             <subject> class/    images that the base model draws from the class prompt; loss_scale.txt is their weight

An epoch shows the class as often as the subject. docs/dreambooth.md says why ground truth serves better.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import yaml

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit, commit_json, commit_text, copy
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.files.image_types import DECODED_EXTENSIONS
from dreamloom.base.files.listing import is_left_out
from dreamloom.base.images.pixels import ImageError, decode
from dreamloom.base.progress import Progress, silent
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.base.stage import recipe
from dreamloom.base.tables.documents import decode_text
from dreamloom.train.config import DreamBoothConfig, TrainConfig, shared_settings
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.families.check import check_base_model
from dreamloom.train.families.suit import suit_family

VERSION = 1
"""Raised when the same config and prompts would give other class images."""
_DECODED = 64
"""Pixels of the shorter side at which an image is looked at."""
MARK = ".dreambooth.json"
"""Says how a folder was made. A folder without this file is not ours to write into."""


@dataclass(frozen=True)
class Subject:
    """Something to learn."""

    name: str
    """Name of its folder."""
    images: tuple[Path, ...]
    instance_prompt: str
    """Caption of its images."""
    class_prompt: str
    """Prompt and caption of the class images."""


@dataclass(frozen=True)
class DreamBoothSummary:
    """What is in the training folder."""

    subjects: int
    images: int
    """Images of subjects."""
    class_images: int
    drawn: int
    """Class images that were not there before."""


def dreambooth(
    subjects: Path | str, target: Path | str, config: DreamBoothConfig, progress: Progress = silent
) -> DreamBoothSummary:
    """Makes a training folder. Existing class images are kept, and only missing ones are drawn.

    Args:
        subjects: holds a subfolder for each subject.
        target: the training folder to make.
        config: how the class images are drawn.
        progress: called with the images drawn.

    Raises:
        UserError: a subject lacks something, the model is missing, or `target` holds something else.
    """
    target = Path(target)
    all_subjects = read_subjects(Path(subjects))
    check_base_model(config.base)
    config = suit_family(config, config.base)
    wanted = recipe("dreambooth", VERSION, config, models={"base": fingerprint(config.base)})
    class_prompts = _check_target(target, wanted, all_subjects)
    drawn = class_images = 0
    with lock(target):
        commit_json(target / MARK, {"recipe": wanted, "classes": class_prompts})
        for subject in all_subjects:
            subject_folder, class_folder = target / subject.name, target / f"{subject.name} class"
            for image in subject.images:
                with commit(subject_folder / image.name, sync=False) as temporary:
                    copy(image, temporary)
            _write_prompt(subject_folder, subject.instance_prompt)
            _write_prompt(class_folder, subject.class_prompt)
            commit_text(class_folder / "loss_scale.txt", f"{config.prior_loss_weight:g}\n")
            drawn += _draw_class_images(subject, class_folder, config, progress)
            count = len(list(class_folder.glob("[0-9]*.png")))  # an earlier call may have drawn more
            _write_multiply(subject_folder, Fraction(count, len(subject.images)))
            _write_multiply(class_folder, Fraction(len(subject.images), count))
            class_images += count
    total = sum(len(subject.images) for subject in all_subjects)
    return DreamBoothSummary(len(all_subjects), total, class_images, drawn)


def read_subjects(folder: Path) -> list[Subject]:
    """Reads the subjects in a folder.

    Raises:
        UserError: there is none, or one lacks its images or prompts.
    """
    subfolders = sorted(path for path in _own(folder) if path.is_dir()) if folder.is_dir() else []
    if not subfolders:
        raise UserError(f"{folder} holds no subjects; make a folder of images in it for each.")
    return [_read_subject(path) for path in subfolders]


def _own(folder: Path) -> list[Path]:
    """Lists what the user put into a folder."""
    return [path for path in folder.iterdir() if not is_left_out(path.name)]


def _read_subject(folder: Path) -> Subject:
    images = tuple(sorted(path for path in _own(folder) if path.suffix.lower() in DECODED_EXTENSIONS))
    if not images:
        raise UserError(f"{folder} holds no images; put those of the subject into it.")
    for image in images:
        try:
            decode(image, at_least=_DECODED)
        except ImageError as error:  # which training would leave out, and so show more of the class than of the subject
            raise UserError(f"{image} can't be used ({error.reason}); replace it, or move it away.") from error
    prompts = []
    for name, example in (("instance.txt", "a photo of sks dog"), ("class.txt", "a photo of a dog")):
        file = folder / name
        text = decode_text(file.read_bytes()).strip() if file.is_file() else ""
        if not text:
            raise UserError(f"{file} is missing or empty; write a prompt into it, such as: {example}")
        prompts.append(text)
    return Subject(folder.name, images, *prompts)


def _check_target(target: Path, recipe: str, subjects: Sequence[Subject]) -> dict[str, str]:
    """Returns subject → class prompt, including those of earlier calls."""
    prompts = {subject.name: subject.class_prompt for subject in subjects}
    if not target.exists() or not any(target.iterdir()):
        return prompts
    try:
        stored = json.loads((target / MARK).read_text(encoding="utf-8"))
        stored_recipe, stored_prompts = stored["recipe"], dict(stored["classes"])
    except (OSError, ValueError, KeyError):
        raise UserError(f"{target} holds something that is not a DreamBooth folder; name a new one.") from None
    if stored_recipe != recipe:
        raise UserError(f"{target} was made with other settings or another model; name a new folder.")
    for name, prompt in prompts.items():
        if stored_prompts.get(name, prompt) != prompt:
            raise UserError(
                f"{target / f'{name} class'} shows {stored_prompts[name]!r}, and {name}/class.txt now says {prompt!r}; "
                "restore the prompt, or name a new folder."
            )
    return stored_prompts | prompts


def _write_prompt(folder: Path, prompt: str) -> None:
    commit_text(folder / "local.yaml", yaml.safe_dump({"main_prompt": prompt}, allow_unicode=True))


def _write_multiply(folder: Path, ratio: Fraction) -> None:
    """Of subject and class, the one with fewer images shows them more than once per epoch."""
    commit_text(folder / "multiply.txt", f"{float(max(Fraction(1), ratio)):.9g}\n")


def _draw_class_images(subject: Subject, folder: Path, config: DreamBoothConfig, progress: Progress) -> int:
    """Draws the missing images, and returns their number. Image n comes from noise n, whatever is drawn with it."""
    files = {number: folder / f"{number:05d}.png" for number in range(config.num_class_images)}
    missing = {number: file for number, file in files.items() if not file.exists()}
    if missing:
        from dreamloom.train.evaluate.sample import draw_each  # imports torch

        settings = shared_settings(config, TrainConfig)
        settings |= {"seed": stream_key(config.seed, "class", subject.name) >> 1, "bucket_reso_steps": 8}
        settings |= {"batch_size": config.sample_batch_size}
        draw_each(subject.class_prompt, missing, TrainConfig.model_validate(settings), progress)
    return len(missing)
