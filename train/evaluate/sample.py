"""Draws sample images from fixed prompts and fixed noise, so that samples differ by the weights alone."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from dreamloom.base.files.atomic import commit
from dreamloom.base.models.device import PrecisionName, choose_precision
from dreamloom.base.progress import Progress
from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.evaluate.drawings import Drawing
from dreamloom.train.evaluate.sample_files import column_of, write_samples
from dreamloom.train.families.opening import load_model
from dreamloom.train.model.device import autocast, choose_device
from dreamloom.train.model.model import Model
from dreamloom.train.samplers import SAMPLERS

_DECODED_PIXELS = 2**21
"""Pixels of the pictures that the VAE decodes at once; large ones come one by one."""


class DrawingSettings(Protocol):
    """What drawing needs of a config, be it of a run or of an audit."""

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""

    @property
    def precision(self) -> PrecisionName:
        """Arithmetic of the computation."""


def draw_samples(
    model: Model, drawings: Sequence[Drawing], path: Path, config: TrainConfig, progress: Progress
) -> None:
    """Writes a file of samples (`dreamloom.train.evaluate.sample_files.write_samples`).

    They are drawn with the base's VAE, and with its scheduler if no other is named.
    """
    images = draw_images(model, drawings, config, progress, "drawing samples")
    write_samples(path, list(map(column_of, drawings, images)), images)


def draw_each(prompt: str, files: Mapping[int, Path], config: TrainConfig, progress: Progress) -> None:
    """Draws one prompt from numbered noises with the config's base model, each to a PNG of its own.

    Args:
        prompt: what the images show.
        files: number of the noise → file.
        config: names the base model, and how images are drawn.
        progress: called with the images drawn.
    """
    model = load_model(config.base, choose_device(config.device), precision=config.precision)
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
    """Draws images of one size, and returns their latents in the denoiser's scale, float32 [n, C, h, w]."""
    batches = _batches(model, drawings, config)
    return torch.cat([_draw_latents(pipeline, model, members, config) for pipeline, members in batches]).float()


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

    name, options = (
        (type(model.scheduler).__name__, {}) if model.family.is_flow or not scheduler else SAMPLERS[scheduler]
    )
    drawing_with = getattr(diffusers, name).from_config(model.scheduler.config, **options)
    pipeline = getattr(diffusers, model.family.pipeline)(**model.pipeline_components(drawing_with))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _draw(pipeline: Any, model: Model, drawings: Sequence[Drawing], config: DrawingSettings) -> list[Image.Image]:
    """Draws images that are drawn alike."""
    latents = _draw_latents(pipeline, model, drawings, config)
    precision = choose_precision(config.precision, model.device)
    width, height = drawings[0].size
    parts = torch.split(model.unscale_latents(latents.float()), max(1, _DECODED_PIXELS // (width * height)))
    # many VAEs overflow in float16, that of Stable Diffusion XL always
    with torch.no_grad(), autocast(model.device, torch.float32 if precision == torch.float16 else precision):
        pixels = torch.cat([model.vae.decode(part, return_dict=False)[0] for part in parts])
    images: list[Image.Image] = pipeline.image_processor.postprocess(pixels, do_denormalize=[True] * len(pixels))
    return images


@torch.no_grad()
def _draw_latents(pipeline: Any, model: Model, drawings: Sequence[Drawing], config: DrawingSettings) -> Tensor:
    """Draws the latents of images that are drawn alike."""
    first, factor = drawings[0], pipeline.vae_scale_factor
    step = model.patch
    width, height = (max(1, side // factor // step) * step for side in first.size)
    shape = (model.denoiser.config.in_channels, height, width)
    keys = [(key, torch.tensor([index], device=model.device)) for key, index in (each.noise for each in drawings)]
    texts = [drawing.prompt for drawing in drawings], [drawing.negative_prompt for drawing in drawings]
    with autocast(model.device, choose_precision(config.precision, model.device)):
        # the pipeline's own clip_skip leaves the negative prompt as it is
        tokens = [model.tokenize(text).map(lambda each: each.to(model.device)) for text in texts]
        wanted, unwanted = model.encode_all(tokens, [None, None])
        output = pipeline(
            **model.pipeline_arguments(wanted, unwanted, texts[1]),
            height=height * factor,
            width=width * factor,
            num_inference_steps=first.num_inference_steps,
            guidance_scale=first.guidance_scale,
            latents=torch.cat([noise.normal(key, index, shape) for key, index in keys]),
            # for schedulers that add noise at each step
            generator=[torch.Generator().manual_seed(stream_key(*drawing.noise) >> 1) for drawing in drawings],
            output_type="latent",
        )
    return torch.as_tensor(output.images)
