"""Plans which images are drawn: their prompts, noise and settings. Imports no torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING

from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion.rng import random_bits, stream_key
from dreamloom.train.evaluate.prompts import SamplePrompt, configured_prompts

if TYPE_CHECKING:
    from dreamloom.train.data.dataset import Dataset

DEFAULT_PROMPTS = 4
"""Number of captions that serve as prompts if none are given."""


@dataclass(frozen=True)
class Drawing:
    """An image to draw, and all that decides how."""

    prompt: str
    negative_prompt: str
    size: tuple[int, int]
    """Width and height."""
    num_inference_steps: int
    guidance_scale: float
    scheduler: str | None
    noise: tuple[int, int]
    """Key of the stream of random numbers, and index in it."""
    heading: str
    """What stands above it in a grid; the same at each point of a run."""
    key: str = ""
    """Names what is drawn and how; the same at each point of a run, also where noise or caption differ."""


def plan_drawings(dataset: "Dataset | None", config: TrainConfig, images_seen: int) -> list[Drawing]:
    """Returns what is to be drawn at a point of a run.

    That is the prompts of the config and, as it is now, of its file; without any, some captions of each folder.

    Args:
        dataset: whose captions serve; None: only what the config names is planned, with empty random captions.
        config: the run's.
        images_seen: the point.
    """
    prompts = configured_prompts(config)
    if not prompts and dataset is not None:
        prompts = _some_captions(dataset)
    return plan_prompts(prompts, config, images_seen, dataset)


def plan_prompts(
    prompts: Sequence[SamplePrompt], config: TrainConfig, images_seen: int, dataset: "Dataset | None" = None
) -> list[Drawing]:
    """Returns a drawing for each prompt and each of its guidance scales; see `plan_drawings`."""
    drawings = []
    for place, prompt in enumerate(prompts):
        text = _caption_of(dataset, config, place, images_seen) if prompt.random_caption else prompt.prompt
        scales = prompt.cfgs or [config.guidance_scale]
        for scale in scales:
            heading = "(a random caption)" if prompt.random_caption else text
            drawing = Drawing(
                text,
                config.sample_negative_prompt if prompt.negative_prompt is None else prompt.negative_prompt,
                prompt.size or (config.resolution, config.resolution),
                prompt.num_inference_steps or config.sample_steps,
                scale,
                prompt.scheduler or config.sample_scheduler,
                _noise_of(prompt.seed, config, place, images_seen),
                f"{heading} [{scale:g}]" if len(scales) > 1 else heading,
            )
            drawings.append(_with_key(drawing, prompt, config, place))
    return drawings


def _with_key(drawing: Drawing, prompt: SamplePrompt, config: TrainConfig, place: int) -> Drawing:
    noise = ("place", place, config.seed) if prompt.seed is None else ("seed", prompt.seed)
    values = {**vars(drawing), "prompt": drawing.heading, "noise": noise, "key": ""}
    return Drawing(**{**vars(drawing), "key": hashlib.blake2b(repr(values).encode(), digest_size=8).hexdigest()})


def _some_captions(dataset: "Dataset") -> list[SamplePrompt]:
    captions: list[list[str]] = [[] for _ in dataset.folders]
    for sample in dataset.samples:
        if sample.caption and sample.caption not in captions[sample.folder_index]:
            captions[sample.folder_index].append(sample.caption)
    in_turn = (caption for caption in chain.from_iterable(zip_longest(*captions)) if caption)
    return [SamplePrompt(prompt=text) for text in islice(dict.fromkeys(in_turn), DEFAULT_PROMPTS)] or [SamplePrompt()]


def _caption_of(dataset: "Dataset | None", config: TrainConfig, place: int, images_seen: int) -> str:
    """Picks a caption of the training folder, another at each point of the run."""
    if dataset is None:
        return ""
    number = int(random_bits(stream_key(config.seed, "sample caption", place), [images_seen])[0])
    return dataset.samples[number % len(dataset.samples)].caption


def _noise_of(seed: int | None, config: TrainConfig, place: int, images_seen: int) -> tuple[int, int]:
    """The noise of a prompt's seed; -1: another at each point of the run; None: that of its place."""
    if seed is None:
        return stream_key(config.seed, "samples"), place
    if seed == -1:
        return stream_key(config.seed, "samples", images_seen), place
    return stream_key(seed, "samples"), 0
