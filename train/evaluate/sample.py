"""Draws sample images from fixed prompts and fixed noise, so that samples differ by the weights alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, groupby, islice, zip_longest
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from dreamloom.base.device import PrecisionName, choose_precision
from dreamloom.base.files import commit
from dreamloom.base.fonts import line_height, load_font, wrap
from dreamloom.base.progress import Progress
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import random_bits, stream_key
from dreamloom.train.evaluate.prompts import SamplePrompt, configured_prompts
from dreamloom.train.model.device import autocast, choose_device
from dreamloom.train.model.model import Model, load_model
from dreamloom.train.samplers import SAMPLERS

DEFAULT_PROMPTS = 4
"""Number of captions that serve as prompts if none are given."""
GRID_ROWS = 16
"""Most rows of a grid."""
GRID_LABEL = 72
"""Width of the label at the left of each row of a grid, in pixels."""
_FONT_SIZE, _HEADING_LINES = 12, 6


class DrawingSettings(Protocol):
    """What drawing needs of a config, be it of a run or of an audit."""

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""

    @property
    def precision(self) -> PrecisionName:
        """Arithmetic of the computation."""


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


def plan_drawings(dataset: Dataset, config: TrainConfig, images_seen: int) -> list[Drawing]:
    """Returns what is to be drawn at a point of a run.

    That is the prompts of the config and, as it is now, of its file; without any, some captions of each folder.
    """
    prompts = configured_prompts(config) or _some_captions(dataset)
    drawings = []
    for place, prompt in enumerate(prompts):
        text = _caption_of(dataset, config, place, images_seen) if prompt.random_caption else prompt.prompt
        scales = prompt.cfgs or [config.guidance_scale]
        for scale in scales:
            heading = "(a random caption)" if prompt.random_caption else text
            drawings.append(
                Drawing(
                    text,
                    config.sample_negative_prompt if prompt.negative_prompt is None else prompt.negative_prompt,
                    prompt.size or (config.resolution, config.resolution),
                    prompt.num_inference_steps or config.sample_steps,
                    scale,
                    prompt.scheduler or config.sample_scheduler,
                    _noise_of(prompt.seed, config, place, images_seen),
                    f"{heading} [{scale:g}]" if len(scales) > 1 else heading,
                )
            )
    return drawings


def draw_samples(
    model: Model, drawings: Sequence[Drawing], path: Path, config: TrainConfig, progress: Progress
) -> None:
    """Writes a PNG with the images side by side.

    They are drawn with the base's VAE, and with its scheduler if no other is named. The file holds the prompts in its
    text chunk "prompts", and the headings and widths of its columns in "columns".
    """
    images = draw_images(model, drawings, config, progress, "drawing samples")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [(drawing.heading, image.width) for drawing, image in zip(drawings, images, strict=True)]
    metadata = PngInfo()
    metadata.add_itxt("prompts", json.dumps([drawing.prompt for drawing in drawings], ensure_ascii=False))
    metadata.add_itxt("columns", json.dumps(columns, ensure_ascii=False))
    with commit(path) as temporary:
        join_side_by_side(images).save(temporary, format="PNG", pnginfo=metadata)


def draw_grid(samples: Path, path: Path) -> None:
    """Writes a PNG with a row for each of a run's samples that show the newest prompts, labeled with the images seen.

    Above each column stands its prompt. If there are more than GRID_ROWS rows, the grid shows that many, evenly spaced,
    including the first and the last.
    """
    files = sorted(samples.glob("[0-9]*.png"))
    with ExitStack() as opened:
        images = [(file.stem, opened.enter_context(Image.open(file))) for file in files]
        columns = _columns(images[-1][1])
        rows = [(name, image) for name, image in images if _columns(image) == columns]
        count = min(len(rows), GRID_ROWS)
        shown = [rows[index * (len(rows) - 1) // max(1, count - 1)] for index in range(count)]
        width, height = images[-1][1].size
        font = load_font(_FONT_SIZE)
        headings = [wrap(heading, font, column - 8, _HEADING_LINES) for heading, column in columns]
        top = max(map(len, headings), default=0) * line_height(font) + (8 if any(headings) else 0)
        grid = Image.new("RGB", (GRID_LABEL + width, top + height * count), "white")
        pen = ImageDraw.Draw(grid)
        left = GRID_LABEL
        for lines, (_, column) in zip(headings, columns, strict=True):
            pen.text((left + 4, 4), "\n".join(lines), fill="black", font=font)
            left += column
        for row, (name, image) in enumerate(shown):
            grid.paste(image, (GRID_LABEL, top + row * height))
            pen.text((4, top + row * height + 4), f"{int(name):,}", fill="black", font=font)
    with commit(path) as temporary:
        grid.save(temporary, format="PNG")


def draw_each(prompt: str, files: Mapping[int, Path], config: TrainConfig, progress: Progress) -> None:
    """Draws one prompt from numbered noises with the config's base model, each to a PNG of its own.

    Args:
        prompt: what the images show.
        files: number of the noise → file.
        config: names the base model, and how images are drawn.
        progress: called with the images drawn.
    """
    model = load_model(config.base, choose_device(config.device))
    key, size = stream_key(config.seed, "samples"), (config.resolution, config.resolution)
    numbers = sorted(files)
    for start in range(0, len(numbers), config.batch_size):
        progress(start, len(numbers), f"drawing {prompt!r}")
        batch = numbers[start : start + config.batch_size]
        drawings = [
            Drawing(prompt, "", size, config.sample_steps, config.guidance_scale, None, (key, number), prompt)
            for number in batch
        ]
        for number, image in zip(batch, _draw(_make_pipeline(model, None), model, drawings, config), strict=True):
            with commit(files[number]) as temporary:
                image.save(temporary, format="PNG")


def draw_images(
    model: Model, drawings: Sequence[Drawing], config: DrawingSettings, progress: Progress, note: str
) -> list[Image.Image]:
    """Draws images, those together that are drawn alike."""
    images: list[Image.Image] = []
    for pipeline, members in _batches(model, drawings, config):
        progress(len(images), len(drawings), note)
        images += _draw(pipeline, model, members, config)
    return images


def draw_latents(model: Model, drawings: Sequence[Drawing], config: DrawingSettings) -> Tensor:
    """Draws images of one size, and returns their latents in the UNet's scale, float32 [n, C, h, w]."""
    batches = _batches(model, drawings, config)
    return torch.cat([_draw(pipeline, model, members, config, "latent") for pipeline, members in batches]).float()


def join_side_by_side(images: list[Image.Image]) -> Image.Image:
    """Joins images into a row, as high as the highest."""
    row = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width
    return row


def _some_captions(dataset: Dataset) -> list[SamplePrompt]:
    captions: list[list[str]] = [[] for _ in dataset.folders]
    for sample in dataset.samples:
        if sample.caption and sample.caption not in captions[sample.folder_index]:
            captions[sample.folder_index].append(sample.caption)
    in_turn = (caption for caption in chain.from_iterable(zip_longest(*captions)) if caption)
    return [SamplePrompt(prompt=text) for text in islice(dict.fromkeys(in_turn), DEFAULT_PROMPTS)] or [SamplePrompt()]


def _caption_of(dataset: Dataset, config: TrainConfig, place: int, images_seen: int) -> str:
    """Picks a caption of the training folder, another at each point of the run."""
    number = int(random_bits(stream_key(config.seed, "sample caption", place), [images_seen])[0])
    return dataset.samples[number % len(dataset.samples)].caption


def _noise_of(seed: int | None, config: TrainConfig, place: int, images_seen: int) -> tuple[int, int]:
    """The noise of a prompt's seed; -1: another at each point of the run; None: that of its place."""
    if seed is None:
        return stream_key(config.seed, "samples"), place
    if seed == -1:
        return stream_key(config.seed, "samples", images_seen), place
    return stream_key(seed, "samples"), 0


def _columns(image: Image.Image) -> list[tuple[str, int]]:
    """Reads the headings and widths of a sample's columns; older files have none."""
    return [(str(heading), int(width)) for heading, width in json.loads(image.info.get("columns", "[]"))]


def _batches(
    model: Model, drawings: Sequence[Drawing], config: DrawingSettings
) -> Iterator[tuple[Any, Sequence[Drawing]]]:
    """Yields batches of images that are drawn alike, each with the pipeline that draws them."""

    def way(drawing: Drawing) -> tuple[Any, ...]:
        return drawing.size, drawing.num_inference_steps, drawing.guidance_scale, drawing.scheduler or ""

    for _, alike in groupby(drawings, way):
        members = list(alike)
        pipeline = _make_pipeline(model, members[0].scheduler)
        for start in range(0, len(members), config.batch_size):
            yield pipeline, members[start : start + config.batch_size]


def _make_pipeline(model: Model, scheduler: str | None) -> Any:
    import diffusers

    name, options = SAMPLERS[scheduler] if scheduler else (type(model.scheduler).__name__, {})
    pipeline = diffusers.StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=getattr(diffusers, name).from_config(model.scheduler.config, **options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def _draw(
    pipeline: Any, model: Model, drawings: Sequence[Drawing], config: DrawingSettings, output_type: str = "pil"
) -> Any:
    """Draws images that are drawn alike: a list of images, or a tensor of latents."""
    first, factor = drawings[0], pipeline.vae_scale_factor
    width, height = (max(1, side // factor) for side in first.size)
    shape = (model.unet.config.in_channels, height, width)
    keys = [(key, torch.tensor([index], device=model.device)) for key, index in (each.noise for each in drawings)]
    texts = [drawing.prompt for drawing in drawings], [drawing.negative_prompt for drawing in drawings]
    with autocast(model.device, choose_precision(config.precision, model.device)):
        # the pipeline's own clip_skip leaves the negative prompt as it is
        wanted, unwanted = (model.encode_text(model.tokenize(text).to(model.device)) for text in texts)
        output = pipeline(
            prompt_embeds=wanted,
            negative_prompt_embeds=unwanted,
            height=height * factor,
            width=width * factor,
            num_inference_steps=first.num_inference_steps,
            guidance_scale=first.guidance_scale,
            latents=torch.cat([noise.normal(key, index, shape) for key, index in keys]),
            # for schedulers that add noise at each step
            generator=[torch.Generator().manual_seed(stream_key(*drawing.noise) >> 1) for drawing in drawings],
            output_type=output_type,
        )
    return output.images
