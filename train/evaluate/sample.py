"""Draws sample images from fixed prompts and fixed noise, so that samples differ by the weights alone."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from dreamloom.base.files import commit
from dreamloom.base.progress import Progress
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.model.device import autocast, choose_device, choose_precision
from dreamloom.train.model.model import Model, load_model

DEFAULT_PROMPTS = 4
"""Number of captions that serve as prompts if none are given."""
GRID_ROWS = 16
"""Most rows of a grid."""
GRID_LABEL = 72
"""Width of the label at the left of each row of a grid, in pixels."""


def draw_samples(model: Model, prompts: list[str], path: Path, config: TrainConfig, progress: Progress) -> None:
    """Writes a PNG with an image of each prompt, side by side.

    The images are drawn with the base's VAE and scheduler. The file holds the prompts in its text chunk "prompts".
    """
    pipeline = _make_pipeline(model)
    images: list[Image.Image] = []
    for start in range(0, len(prompts), config.batch_size):
        progress(start, len(prompts), "drawing samples")
        numbered = dict(list(enumerate(prompts))[start : start + config.batch_size])
        images += _draw(pipeline, model, numbered, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = PngInfo()
    metadata.add_itxt("prompts", json.dumps(prompts, ensure_ascii=False))
    with commit(path) as temporary:
        join_side_by_side(images).save(temporary, format="PNG", pnginfo=metadata)


def draw_grid(samples: Path, path: Path) -> None:
    """Writes a PNG with a row for each of a run's samples that show the newest prompts, labeled with the images seen.

    If there are more than GRID_ROWS, the grid shows that many, evenly spaced, including the first and the last.
    """
    files = sorted(samples.glob("[0-9]*.png"))
    with ExitStack() as opened:
        images = [(file.stem, opened.enter_context(Image.open(file))) for file in files]
        prompts = images[-1][1].info.get("prompts")
        rows = [(name, image) for name, image in images if image.info.get("prompts") == prompts]
        count = min(len(rows), GRID_ROWS)
        shown = [rows[index * (len(rows) - 1) // max(1, count - 1)] for index in range(count)]
        width, height = images[-1][1].size
        grid = Image.new("RGB", (GRID_LABEL + width, height * count), "white")
        pen = ImageDraw.Draw(grid)
        for row, (name, image) in enumerate(shown):
            grid.paste(image, (GRID_LABEL, row * height))
            pen.text((4, row * height + 4), f"{int(name):,}", fill="black")
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
    pipeline = _make_pipeline(model)
    numbers = sorted(files)
    for start in range(0, len(numbers), config.batch_size):
        progress(start, len(numbers), f"drawing {prompt!r}")
        batch = numbers[start : start + config.batch_size]
        images = _draw(pipeline, model, dict.fromkeys(batch, prompt), config)
        for number, image in zip(batch, images, strict=True):
            with commit(files[number]) as temporary:
                image.save(temporary, format="PNG")


def choose_prompts(dataset: Dataset, config: TrainConfig) -> list[str]:
    """Returns the prompts of the config and, as it is now, of its file; without any, some captions of each folder."""
    if prompts := [*config.sample_prompts, *read_prompts(config.sample_prompts_file)]:
        return prompts
    captions: list[list[str]] = [[] for _ in dataset.folders]
    for sample in dataset.samples:
        if sample.caption and sample.caption not in captions[sample.folder_index]:
            captions[sample.folder_index].append(sample.caption)
    in_turn = (caption for caption in chain.from_iterable(zip_longest(*captions)) if caption)
    return list(islice(dict.fromkeys(in_turn), DEFAULT_PROMPTS)) or [""]


def read_prompts(file: Path | None) -> list[str]:
    """Reads prompts from a file, one a line; lines that begin with # are comments. Returns none if it can't be read."""
    try:
        lines = file.expanduser().read_text(encoding="utf-8").splitlines() if file else []
    except (OSError, UnicodeDecodeError):
        return []  # the user may be editing it, and the run must go on
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def join_side_by_side(images: list[Image.Image]) -> Image.Image:
    """Joins images of one size into a row."""
    width, height = images[0].size
    row = Image.new("RGB", (width * len(images), height))
    for column, image in enumerate(images):
        row.paste(image, (column * width, 0))
    return row


def _make_pipeline(model: Model) -> Any:
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=model.scheduler.from_config(model.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def _draw(pipeline: Any, model: Model, prompts: Mapping[int, str], config: TrainConfig) -> list[Image.Image]:
    """Draws an image of each prompt from the noise of its number."""
    side = config.resolution // pipeline.vae_scale_factor
    indices = torch.tensor(list(prompts), device=model.device)
    latents = noise.normal(stream_key(config.seed, "samples"), indices, (model.unet.config.in_channels, side, side))
    with autocast(model.device, choose_precision(config.precision, model.device)):
        output = pipeline(
            list(prompts.values()),
            height=config.resolution,
            width=config.resolution,
            num_inference_steps=config.sample_steps,
            guidance_scale=config.guidance_scale,
            latents=latents,
            generator=torch.Generator().manual_seed(config.seed),  # for schedulers that add noise at each step
        )
    return list(output.images)
