"""Zero-shot accuracy: a model as a classifier of real images (Diffusion Classifier: Li et al. 2023, arXiv 2303.16203).

An image's latent is noised, and that class is taken whose prompt predicts the noise best, by the mean squared error
over noise levels. All classes and both models see the same noise at the same levels, those of the schedule's noisier
half: there a prompt decides what is drawn, below it the image does. After each round of levels a third of the classes
is left, so that many classes cost little more than few.

How far the best other class is behind, the margin, shows damage before the accuracy does. What counts is the share of
the base's margin that is left (`audit_spearman` of bench/preservation.py).
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor

from dreamloom.base.models.device import choose_precision
from dreamloom.base.progress import Progress, silent
from dreamloom.base.text import indefinite_article
from dreamloom.caption.nouns import mentions
from dreamloom.train.audit.class_images import ClassImages, read_class_images
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.audit.journal import Journal
from dreamloom.train.audit.pair import add_noise_at, encode_prompts, predict, spread_timesteps
from dreamloom.train.data.crops import center_view
from dreamloom.train.data.dataset import Sample
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import permutation, stream_key
from dreamloom.train.evaluate.held_out_loss import content_number
from dreamloom.train.families.opening import load_model
from dreamloom.train.model.device import choose_device
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Condition, stack

KEPT = 3
"""Of so many classes, a round leaves one."""
GOLDEN_RATIO = 0.6180339887498949
"""The step of the sequence that spreads the levels of the rounds evenly."""


NOISY = 0.5
"""Share of the schedule, from its noisy end, at which models are asked."""


@dataclass(frozen=True)
class Answer:
    """What a model takes an image for."""

    chosen: str
    """The class."""
    margin: float
    """How much worse the best other class predicts the noise than the best of the image's own, as a share of its error;
    below 0 where another is better. Of the last round in which there were both."""


@dataclass(frozen=True)
class Question:
    """What a model is asked about an image."""

    name: str
    latents: Tensor
    """In the UNet's scale, float32 [C, h, w], on the CPU."""
    number: int
    """What the noise depends on: a number of the image's content."""
    classes: tuple[str, ...]
    """What it shows."""
    prompts: Mapping[str, str]
    """The classes to choose from, among them its own → the prompt of each."""


def classify(
    model: str, images: Path, class_prompts: Mapping[str, str] | None, config: AuditConfig
) -> dict[str, float]:
    """Measures how often a model takes each class for what it is.

    Args:
        model: a diffusers folder, a file or a hub ID.
        images: a folder of images; see `dreamloom.train.audit.class_images.read_class_images`.
        class_prompts: class → its prompt, where images of other classes are left out; None: as in `ask`.
        config: how much is measured.

    Returns:
        Class → share of its images for which one of their classes was chosen.

    Raises:
        UserError: the model or the images are missing.
    """
    found = read_class_images(images, config)
    if class_prompts is not None:
        found = found.of_classes(class_prompts)
    device = choose_device(config.device)
    loaded = load_model(
        model, device, clip_skip=config.clip_skip, t5_length=config.t5_length, precision=config.precision
    )
    precision = choose_precision(config.precision, device)
    questions, _ = ask(loaded, found, config, class_prompts)
    answers = answer(loaded, questions, config, precision, Journal(None), silent)
    return accuracies(questions, answers)


def accuracies(questions: Sequence[Question], answers: Mapping[str, Answer]) -> dict[str, float]:
    """Returns class → share of its images for which one of their classes was chosen."""
    right: dict[str, list[bool]] = {}
    for question in questions:
        for name in question.classes:
            right.setdefault(name, []).append(answers[question.name].chosen in question.classes)
    return {name: sum(marks) / len(marks) for name, marks in sorted(right.items())}


def ask(
    model: Model,
    images: ClassImages,
    config: AuditConfig,
    class_prompts: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> tuple[list[Question], list[str]]:
    """Encodes images by the model's VAE, and chooses what each is told apart from.

    Where an image's caption names its class, the prompt of another class is that caption with the other name in its
    place, so that nothing else of the image speaks for or against a class. Elsewhere it is the config's `class_prompt`.

    Args:
        model: whose VAE encodes.
        images: the images.
        config: how much is measured.
        class_prompts: class → its prompt, for all images alike; None: as told above.
        progress: called with the images encoded.

    Returns:
        A question for each image, and the images that can't be decoded, each with the reason.
    """
    cache = LatentCache(None, model.vae)
    problems = cache.add(images.dataset.samples, config.num_workers, progress)
    images = images.without(problem.name for problem in problems)
    names = images.names()

    def question(sample: Sample) -> Question:
        key, own = cache.key(sample), images.classes[sample.name]
        latents = model.scale_latents(cache.get(sample, center_view(sample))[0].float())
        choices = _choices(own, names, key, config)
        prompts = {name: class_prompts[name] for name in choices} if class_prompts else None
        return Question(
            sample.name, latents, content_number(key), own, prompts or _prompts(sample.caption, own, choices, config)
        )

    return [question(sample) for sample in images.dataset.samples], [f"{p.name} ({p.reason})" for p in problems]


def answer(
    model: Model,
    questions: Sequence[Question],
    config: AuditConfig,
    precision: torch.dtype,
    journal: Journal,
    progress: Progress,
) -> dict[str, Answer]:
    """Classifies the images that the journal does not have yet; returns image → answer."""
    states: dict[str, Condition] = {}  # of each prompt, computed once
    for done, question in enumerate(questions):
        progress(done, len(questions), "classifying images")
        if question.name not in journal.results:
            start = time.monotonic()
            new = [prompt for prompt in dict.fromkeys(question.prompts.values()) if prompt not in states]
            for at in range(0, len(new), config.batch_size):
                part = new[at : at + config.batch_size]
                encoded = encode_prompts(model, part, config.resolution, precision)
                states |= {prompt: encoded.map(itemgetter(row)) for row, prompt in enumerate(part)}
            of_class = {name: states[prompt] for name, prompt in question.prompts.items()}
            found = _classify(model, question, of_class, config, precision)
            journal.put(question.name, {**asdict(found), "seconds": time.monotonic() - start})
    progress(len(questions), len(questions), "classifying images")
    results = {question.name: journal.results[question.name] for question in questions}
    return {name: Answer(str(found["chosen"]), float(found["margin"])) for name, found in results.items()}


def passes_per_image(num_classes: int, config: AuditConfig) -> int:
    """Counts the forward passes that a model needs for an image."""
    left, passes = min(num_classes, config.num_choices or num_classes), 0
    while left > 1:
        passes += left * config.class_timesteps
        left = _left_over(left)
    return passes


@torch.no_grad()
def _classify(
    model: Model, question: Question, states: Mapping[str, Condition], config: AuditConfig, precision: torch.dtype
) -> Answer:
    left = dict.fromkeys(question.prompts, 0.0)
    margin = 0.0
    levels, latents = config.class_timesteps, question.latents.to(model.device)
    round_number = 0
    while len(left) > 1:
        shift = (0.5 + round_number * GOLDEN_RATIO) % 1
        timesteps = spread_timesteps(model, levels, shift, NOISY)
        indices = question.number + round_number * levels + torch.arange(levels, device=model.device)
        added = noise.normal(stream_key(config.seed, "audit class noise"), indices, tuple(latents.shape))
        noisy, target = add_noise_at(model, latents.expand(levels, -1, -1, -1), added, timesteps)
        texts = stack([states[name] for name in left]).map(lambda each: each.repeat_interleave(levels, 0))
        repeats = (len(left), 1, 1, 1)
        predicted = predict(
            model, noisy.repeat(repeats), timesteps.repeat(len(left)), texts, precision, config.batch_size
        )
        errors = ((predicted - target.repeat(repeats)) ** 2).mean(dim=(1, 2, 3)).view(len(left), levels).sum(dim=1)
        sums = {name: left[name] + error for name, error in zip(left, errors.tolist(), strict=True)}
        own, others = _split(sums, question.classes)
        margin = min(others) / min(own) - 1 if own and others else margin
        best = sorted(sums, key=lambda name: (sums[name], name))[: _left_over(len(left))]
        left = {name: sums[name] for name in best}
        round_number += 1
    return Answer(next(iter(left)), margin)


def _split(sums: Mapping[str, float], classes: Sequence[str]) -> tuple[list[float], list[float]]:
    """Returns the sums of an image's own classes, and those of the others."""
    own = [error for name, error in sums.items() if name in classes]
    return own, [error for name, error in sums.items() if name not in classes]


def _left_over(classes: int) -> int:
    return -(-classes // KEPT) if classes > 2 else 1


def _choices(own: tuple[str, ...], names: Sequence[str], key: str, config: AuditConfig) -> tuple[str, ...]:
    """The image's own classes, and others that its content and the seed choose."""
    others = [name for name in names if name not in own]
    order = permutation(stream_key(config.seed, "audit choices", key), len(others))
    count = len(others) if config.num_choices is None else max(1, config.num_choices - len(own))
    return tuple(sorted((*own, *(others[place] for place in order[:count]))))


def _prompts(caption: str, own: tuple[str, ...], choices: Sequence[str], config: AuditConfig) -> dict[str, str]:
    named = next((name for name in own if mentions(name, caption)), None)
    if named is None:
        return {name: class_prompt(name, config) for name in choices}
    pattern = re.compile(rf"(?<!\w)(an? )?{re.escape(named)}(?!\w)", re.IGNORECASE)

    def put_in(name: str) -> str:
        return pattern.sub(lambda found: (indefinite_article(name) if found[1] else "") + name, caption, count=1)

    return {name: caption if name == named else put_in(name) for name in choices}


def class_prompt(name: str, config: AuditConfig) -> str:
    """Returns the prompt of a class whatever the image."""
    return " ".join(config.class_prompt.format(a=indefinite_article(name).strip(), name=name).split())
