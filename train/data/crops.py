"""How an image is brought into its bucket: cropped or padded, from the center or beside it, mirrored or not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageColor
from torch import Tensor

from dreamloom.base.images.buckets import MIDDLE, PixelBox, Size, center_crop_box
from dreamloom.base.images.pixels import decode
from dreamloom.train.config import TrainConfig
from dreamloom.train.config_fields import MicroConditioning
from dreamloom.train.data.dataset import Sample
from dreamloom.train.diffusion.rng import stream_key, uniform

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels of the upright image."""


@dataclass(frozen=True)
class View:
    """One way to show an image in its bucket."""

    box: Box
    """The part of the image that is shown."""
    flipped: bool = False
    """Whether it is mirrored, left to right."""
    pad_color: str | None = None
    """The colour (#rrggbb) around the image, where its shape is not the bucket's; None: the box has the bucket's."""

    def __str__(self) -> str:
        """Returns the view's part of the keys in the latent cache."""
        edges = ",".join(f"{edge:g}" for edge in self.box)
        return f"{edges}{self.pad_color or ''}{'-flipped' if self.flipped else ''}"


def center_view(sample: Sample, pad_color: str | None = None) -> View:
    """Returns the view without jitter and flip: the largest crop around the focus, or the whole image on a colour."""
    if pad_color is None:
        return View(center_crop_box(sample.size, sample.bucket, sample.settings.focus or MIDDLE))
    return View((0, 0, *sample.size), pad_color=pad_color)


class CropPlanner:
    """Lists the views that a run shows, and chooses the view of each of its samples.

    Args:
        config: the run's; of it count crops, flips, padding and seed.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Derives the keys of the random numbers of flips and crops."""
        self.config = config
        self.num_crops = config.crops_per_image if config.crop_jitter else 1
        self.flip_key, self.crop_key = stream_key(config.seed, "flip"), stream_key(config.seed, "crop")

    def all_views(self, sample: Sample) -> list[View]:
        """Lists all views in which an image may be shown."""
        flip_p = self._flip_p(sample)
        flips = [flipped for flipped, shown in ((False, flip_p < 1), (True, flip_p > 0)) if shown]
        return [self._view(sample, number, flipped) for number in range(self.num_crops) for flipped in flips]

    def choose_views(self, samples: Sequence[Sample], indices: Sequence[int]) -> list[View]:
        """Chooses the view of each sample: a function of the seed and the sample's index.

        Args:
            samples: a batch.
            indices: the run's index of each.
        """
        flip_p = np.array([self._flip_p(sample) for sample in samples])
        flipped = (uniform(self.flip_key, indices) < flip_p).tolist()
        numbers = (uniform(self.crop_key, indices) * self.num_crops).astype(int).tolist()
        return [self._view(*chosen) for chosen in zip(samples, numbers, flipped, strict=True)]

    def _flip_p(self, sample: Sample) -> float:
        return self.config.flip_p if sample.settings.flip_p is None else sample.settings.flip_p

    def _view(self, sample: Sample, number: int, flipped: bool) -> View:
        view = replace(center_view(sample, self.config.pad_color), flipped=flipped)
        if not number:
            return view
        focus = sample.settings.focus or MIDDLE
        return replace(view, box=jitter_crop(view.box, sample.size, number, self.config.crop_jitter, focus))


def jitter_crop(box: Box, size: Size, number: int, jitter: float, focus: tuple[float, float] = MIDDLE) -> Box:
    """Computes a crop beside the central one, most likely near it.

    Sizes and places are a low-discrepancy sequence (M. Roberts 2018, R3), so that few crops differ much.

    Args:
        box: the central crop.
        size: the image's, upright.
        number: which crop of the sequence, from 1.
        jitter: the share of the sides by which a crop may be smaller.
        focus: around which point they lie: x and y, in shares of the sides.
    """
    trim, across, down = (number * step % 1 for step in _STEPS)
    width, height = ((box[2] - box[0]) * (1 - jitter * trim), (box[3] - box[1]) * (1 - jitter * trim))
    left = _jitter(size[0], width, focus[0], across)
    top = _jitter(size[1], height, focus[1], down)
    return left, top, left + width, top + height


def micro_conditioning(samples: Sequence[Sample], views: Sequence[View], kind: MicroConditioning) -> Tensor:
    """Computes what a model may be told of images beside what they show (Podell et al. 2023, arXiv 2307.01952, 2.2).

    These are the original height and width, the top and left of the crop, and the height and width that are shown. The
    crop is in pixels of the image as it is scaled and mirrored, as diffusers' training scripts have it.

    Args:
        samples: B samples.
        views: the view of each.
        kind: `images`: as it was; `constant`: as if images were no larger than they are shown, as samples are drawn.

    Returns:
        float32 [B, 6].
    """
    rows = [_sizes(sample, view, kind) for sample, view in zip(samples, views, strict=True)]
    return torch.tensor(rows, dtype=torch.float32)


def _sizes(sample: Sample, view: View, kind: MicroConditioning) -> tuple[int, ...]:
    shown = (sample.bucket[1], sample.bucket[0])
    if kind == "constant":
        return (*shown, 0, 0, *shown)
    original = (sample.size[1], sample.size[0])
    if view.pad_color:
        return (*original, 0, 0, *shown)
    left, top, right, bottom = view.box
    beside = sample.size[0] - right if view.flipped else left
    scaled = (round(top * shown[0] / (bottom - top)), round(beside * shown[1] / (right - left)))
    return (*original, *scaled, *shown)


def padded_image_box(sample: Sample) -> PixelBox:
    """Computes where a padded image lies in its bucket."""
    (width, height), (bucket_width, bucket_height) = sample.size, sample.bucket
    scale = min(bucket_width / width, bucket_height / height)
    scaled_width, scaled_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (bucket_width - scaled_width) // 2, (bucket_height - scaled_height) // 2
    return left, top, left + scaled_width, top + scaled_height


def latent_mask(sample: Sample, view: View, height: int, width: int) -> npt.NDArray[np.float32]:
    """Computes which pixels of a padded image's latent show nothing but image.

    Returns:
        0 or 1, [height, width].
    """
    left, top, right, bottom = padded_image_box(sample)
    if view.flipped:
        left, right = sample.bucket[0] - right, sample.bucket[0] - left
    rows = _inner_cells(top, bottom, sample.bucket[1] // height)
    columns = _inner_cells(left, right, sample.bucket[0] // width)
    mask = np.zeros((height, width), np.float32)
    mask[rows, columns] = 1
    return mask


def render_views(
    sample: Sample, views: Sequence[View], source: bytes | Path | None = None
) -> list[np.ndarray[Any, Any]]:
    """Decodes an image once, and renders it in each of the views.

    Args:
        sample: the image.
        views: how it is shown.
        source: its bytes or its file, as `ByteRange.decodable` returned them; None: it is asked.

    Returns:
        For each view uint8 [H, W, 3], of the bucket's size.

    Raises:
        ImageError: the image can't be decoded.
    """
    scale = max(_scale(sample, view) for view in views)
    at_least = ceil(min(sample.size) * scale) if scale < 1 else None
    image = decode(sample.image.source.decodable() if source is None else source, at_least=at_least)
    return [_render(image, sample, view) for view in views]


def _inner_cells(start: int, stop: int, step: int) -> slice:
    """The cells of `step` pixels that lie inside a range; of a range thinner than two cells, the one in its middle."""
    first, last = -(-start // step), stop // step
    return slice(first, last) if first < last else slice(middle := (start + stop) // 2 // step, middle + 1)


def _scale(sample: Sample, view: View) -> float:
    left, top, right, bottom = view.box
    across, down = sample.bucket[0] / (right - left), sample.bucket[1] / (bottom - top)
    return min(across, down) if view.pad_color else max(across, down)


def _render(image: Image.Image, sample: Sample, view: View) -> np.ndarray[Any, Any]:
    if view.pad_color:
        inner = padded_image_box(sample)
        rendered = Image.new("RGB", sample.bucket, ImageColor.getrgb(view.pad_color))
        scaled = image.resize((inner[2] - inner[0], inner[3] - inner[1]), Image.Resampling.LANCZOS)
        rendered.paste(scaled, inner[:2])
    else:
        # JPEGs may have been decoded smaller than they are
        across, down = image.width / sample.size[0], image.height / sample.size[1]
        left, top, right, bottom = view.box
        box = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
        rendered = image.resize(sample.bucket, Image.Resampling.LANCZOS, box=box)
    pixels = np.asarray(rendered)
    return np.ascontiguousarray(pixels[:, ::-1]) if view.flipped else pixels


def _jitter(side: int, inside: float, focus: float, uniform_draw: float) -> float:
    """Returns where a crop begins on a side: most likely so that the focus is in its middle."""
    room = side - inside
    peak = min(max((side * focus - inside / 2) / room, 0.0), 1.0) if room else 0.5
    return room * _triangular(uniform_draw, peak)


def _triangular(uniform_draw: float, peak: float) -> float:
    """Maps a uniform number in [0, 1) to a triangular distribution on [0, 1] with its peak at `peak`."""
    return sqrt(uniform_draw * peak) if uniform_draw < peak else 1 - sqrt((1 - uniform_draw) * (1 - peak))


_PLASTIC = 1.2207440846057596
"""The root of x⁴ = x + 1, from which the steps of R3 derive."""
_STEPS = tuple(_PLASTIC**-power for power in (1, 2, 3))
