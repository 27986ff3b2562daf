"""Pictures that a model makes of fixed prompts from fixed noise, so that only the weights tell them apart."""

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
GRID_ROWS = 16
GRID_LABEL = 72
"""Pixels at the left of each row, for the images seen."""


def draw_samples(model: Model, prompts: list[str], path: Path, config: TrainConfig, progress: Progress) -> None:
    """Writes a PNG with an image of each prompt, side by side, made with the base's VAE and sampler.

    The file says which prompts these are, in its text named "prompts".
    """
    pipeline = _pipeline(model)
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), config.batch_size):
        progress(start, len(prompts), "drawing samples")
        pictures += _draw(pipeline, model, dict(list(enumerate(prompts))[start : start + config.batch_size]), config)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = PngInfo()
    about.add_itxt("prompts", json.dumps(prompts, ensure_ascii=False))
    with commit(path) as temporary:
        side_by_side(pictures).save(temporary, format="PNG", pnginfo=about)


def draw_grid(samples: Path, path: Path) -> None:
    """Writes a PNG with a row for each of a run's samples that show the newest prompts, the images seen beside it.

    Of more than GRID_ROWS, that many are shown, evenly spaced, the first and the last among them.
    """
    files = sorted(samples.glob("[0-9]*.png"))
    with ExitStack() as opened:
        images = [(file.stem, opened.enter_context(Image.open(file))) for file in files]
        prompts = images[-1][1].info.get("prompts")
        rows = [(name, image) for name, image in images if image.info.get("prompts") == prompts]
        count = min(len(rows), GRID_ROWS)
        shown = [rows[place * (len(rows) - 1) // max(1, count - 1)] for place in range(count)]
        width, height = images[-1][1].size
        grid = Image.new("RGB", (GRID_LABEL + width, height * count), "white")
        pen = ImageDraw.Draw(grid)
        for place, (name, image) in enumerate(shown):
            grid.paste(image, (GRID_LABEL, place * height))
            pen.text((4, place * height + 4), f"{int(name):,}", fill="black")
    with commit(path) as temporary:
        grid.save(temporary, format="PNG")


def draw_each(prompt: str, files: Mapping[int, Path], config: TrainConfig, progress: Progress) -> None:
    """Draws one prompt from numbered noises with the config's base model, each to a PNG of its own.

    Args:
        files: number of the noise → file.
    """
    model = load_model(config.base, choose_device(config.device))
    pipeline = _pipeline(model)
    numbers = sorted(files)
    for start in range(0, len(numbers), config.batch_size):
        progress(start, len(numbers), f"drawing {prompt!r}")
        together = numbers[start : start + config.batch_size]
        for number, picture in zip(
            together, _draw(pipeline, model, dict.fromkeys(together, prompt), config), strict=True
        ):
            with commit(files[number]) as temporary:
                picture.save(temporary, format="PNG")


def choose_prompts(dataset: Dataset, config: TrainConfig) -> list[str]:
    """The prompts of the config and, as it is now, its file; without any, some captions of each folder in turn."""
    if given := [*config.sample_prompts, *read_prompts(config.sample_prompts_file)]:
        return given
    folders: list[list[str]] = [[] for _ in dataset.folders]
    for sample in dataset.samples:
        if sample.caption and sample.caption not in folders[sample.folder_index]:
            folders[sample.folder_index].append(sample.caption)
    turns = (caption for caption in chain.from_iterable(zip_longest(*folders)) if caption)
    return list(islice(dict.fromkeys(turns), DEFAULT_PROMPTS)) or [""]


def read_prompts(file: Path | None) -> list[str]:
    """The prompts in a file, one a line; lines that begin with # are notes. None while there is no file."""
    try:
        lines = file.expanduser().read_text(encoding="utf-8").splitlines() if file else []
    except (OSError, UnicodeDecodeError):
        return []  # it is being edited: a run does not end for that
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size in a row."""
    width, height = pictures[0].size
    row = Image.new("RGB", (width * len(pictures), height))
    for place, picture in enumerate(pictures):
        row.paste(picture, (place * width, 0))
    return row


def _pipeline(model: Model) -> Any:
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
    """An image of each prompt, from the noise of its number."""
    side = config.resolution // pipeline.vae_scale_factor
    indices = torch.tensor(list(prompts), device=model.device)
    start = noise.normal(stream_key(config.seed, "samples"), indices, (model.unet.config.in_channels, side, side))
    with autocast(model.device, choose_precision(config.precision, model.device)):
        made = pipeline(
            list(prompts.values()),
            height=config.resolution,
            width=config.resolution,
            num_inference_steps=config.sample_steps,
            guidance_scale=config.guidance_scale,
            latents=start,
            generator=torch.Generator().manual_seed(config.seed),  # for samplers that add noise on the way
        )
    return list(made.images)
