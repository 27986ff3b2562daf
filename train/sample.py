"""Pictures that a model makes of fixed prompts from fixed noise, so that only the weights tell them apart."""

from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from base.files import commit
from base.progress import Progress
from train import noise
from train.config import TrainConfig
from train.dataset import Dataset
from train.device import autocast, choose_precision
from train.model import Model
from train.rng import stream

DEFAULT_PROMPTS = 4


def draw_samples(model: Model, prompts: list[str], path: Path, config: TrainConfig, progress: Progress) -> None:
    """Writes a PNG with a picture of each prompt, side by side, made with the base's VAE and sampler."""
    pipeline = _pipeline(model)
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), config.batch):
        progress(start, len(prompts), "drawing samples")
        pictures += _draw(pipeline, model, prompts, range(start, min(start + config.batch, len(prompts))), config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with commit(path) as temporary:
        side_by_side(pictures).save(temporary, format="PNG")


def choose_prompts(dataset: Dataset, config: TrainConfig) -> list[str]:
    """The prompts of the config; without any, some captions: the first of each folder, then the second of each, …"""
    if config.prompts:
        return config.prompts
    folders: list[list[str]] = [[] for _ in dataset.folders]
    for sample in dataset.samples:
        if sample.caption and sample.caption not in folders[sample.folder]:
            folders[sample.folder].append(sample.caption)
    turns = (caption for caption in chain.from_iterable(zip_longest(*folders)) if caption)
    return list(islice(dict.fromkeys(turns), DEFAULT_PROMPTS)) or [""]


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
def _draw(pipeline: Any, model: Model, prompts: list[str], places: range, config: TrainConfig) -> list[Image.Image]:
    side = config.resolution // pipeline.vae_scale_factor
    indices = torch.tensor(list(places), device=model.device)
    start = noise.normal(stream(config.seed, "samples"), indices, (model.unet.config.in_channels, side, side))
    with autocast(model.device, choose_precision(config.precision, model.device)):
        made = pipeline(
            [prompts[place] for place in places],
            height=config.resolution,
            width=config.resolution,
            num_inference_steps=config.sample_steps,
            guidance_scale=config.guidance,
            latents=start,
            generator=torch.Generator().manual_seed(config.seed),  # for samplers that add noise on the way
        )
    return list(made.images)
