"""How an image is brought into its bucket: cropped or padded, from the middle or beside it, mirrored or not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor

from dreamloom.base.pixels import decode
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.buckets import Size, center_crop_box
from dreamloom.train.data.dataset import Sample
from dreamloom.train.diffusion.rng import stream_key, uniform

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of the upright image."""


@dataclass(frozen=True)
class View:
    """One way to show an image in its bucket."""

    box: Box
    """The part of it that is shown."""
    flipped: bool = False
    """Mirrored, left to right."""
    pad_color: str | None = None
    """The colour (#rrggbb) around it, where its shape is not the bucket's; None: the box has the bucket's shape."""

    def __str__(self) -> str:
        edges = ",".join(f"{edge:g}" for edge in self.box)
        return f"{edges}{self.pad_color or ''}{'-flipped' if self.flipped else ''}"


def center_view(sample: Sample, pad_color: str | None = None) -> View:
    """The largest part from the middle that has the bucket's shape; or, on a colour, the whole image."""
    return (
        View(center_crop_box(sample.size, sample.bucket))
        if pad_color is None
        else View((0, 0, *sample.size), pad_color=pad_color)
    )


class CropPlanner:
    """The views that a run shows, and which of them each of its samples has."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.crops = config.crops_per_image if config.crop_jitter else 1
        self.flips, self.places = stream_key(config.seed, "flip"), stream_key(config.seed, "crop")

    def views(self, sample: Sample) -> list[View]:
        """All that may be shown of an image."""
        share = self._share(sample)
        flips = [flipped for flipped, shown in ((False, share < 1), (True, share > 0)) if shown]
        return [self._view(sample, number, flipped) for number in range(self.crops) for flipped in flips]

    def choose_views(self, samples: Sequence[Sample], first: int) -> list[View]:
        """What is shown of the samples whose indices go from `first` on: a function of the seed and the index."""
        indices = np.arange(first, first + len(samples))
        shares = np.array([self._share(sample) for sample in samples])
        flipped = (uniform(self.flips, indices) < shares).tolist()
        numbers = (uniform(self.places, indices) * self.crops).astype(int).tolist()
        return [self._view(*chosen) for chosen in zip(samples, numbers, flipped, strict=True)]

    def _share(self, sample: Sample) -> float:
        return self.config.flip_p if sample.settings.flip_p is None else sample.settings.flip_p

    def _view(self, sample: Sample, number: int, flipped: bool) -> View:
        view = replace(center_view(sample, self.config.pad_color), flipped=flipped)
        return (
            replace(view, box=jitter_crop(view.box, sample.size, number, self.config.crop_jitter)) if number else view
        )


def jitter_crop(box: Box, size: Size, number: int, jitter: float) -> Box:
    """The numberth crop beside the middle one: its sides up to `jitter` shorter, most likely near the middle.

    Sizes and places are a low-discrepancy sequence (M. Roberts 2018, R3), so that few crops differ much.
    """
    trim, across, down = (number * step % 1 for step in _STEPS)
    width, height = ((box[2] - box[0]) * (1 - jitter * trim), (box[3] - box[1]) * (1 - jitter * trim))
    left, top = (size[0] - width) * _triangular(across), (size[1] - height) * _triangular(down)
    return left, top, left + width, top + height


def padded_image_box(sample: Sample) -> tuple[int, int, int, int]:
    """Where a padded image lies in its bucket: left, top, right, bottom, in pixels."""
    (width, height), (across, down) = sample.size, sample.bucket
    scale = min(across / width, down / height)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (across - wide) // 2, (down - high) // 2
    return left, top, left + wide, top + high


def latent_mask(sample: Sample, view: View, height: int, width: int) -> npt.NDArray[np.float32]:
    """Which cells of a padded image's latent show nothing but image: 0 or 1, [height, width]."""
    left, top, right, bottom = padded_image_box(sample)
    if view.flipped:
        left, right = sample.bucket[0] - right, sample.bucket[0] - left
    cells = np.zeros((height, width), np.float32)
    cells[_whole(top, bottom, sample.bucket[1] // height), _whole(left, right, sample.bucket[0] // width)] = 1
    return cells


def render_views(sample: Sample, views: Sequence[View]) -> list[np.ndarray[Any, Any]]:
    """An image in each of the views, decoded once, uint8 [H, W, 3].

    Raises:
        ImageError: it can't be decoded.
    """
    scale = max(_scale(sample, view) for view in views)
    at_least = ceil(min(sample.size) * scale) if scale < 1 else None
    stored = sample.image.source
    image = decode(stored.path if stored.length is None else stored.read(), at_least=at_least)
    return [_shown(image, sample, view) for view in views]


def _whole(start: int, stop: int, step: int) -> slice:
    """The cells that lie whole within; of an image thinner than two cells, the one in its middle."""
    first, last = -(-start // step), stop // step
    return slice(first, last) if first < last else slice(middle := (start + stop) // 2 // step, middle + 1)


def _scale(sample: Sample, view: View) -> float:
    left, top, right, bottom = view.box
    across, down = sample.bucket[0] / (right - left), sample.bucket[1] / (bottom - top)
    return min(across, down) if view.pad_color else max(across, down)


def _shown(image: Image.Image, sample: Sample, view: View) -> np.ndarray[Any, Any]:
    if view.pad_color:
        inner = padded_image_box(sample)
        shown = Image.new("RGB", sample.bucket, ImageColor.getrgb(view.pad_color))
        shown.paste(image.resize((inner[2] - inner[0], inner[3] - inner[1]), Image.Resampling.LANCZOS), inner[:2])
    else:
        # JPEGs may have been decoded smaller than they are
        across, down = image.width / sample.size[0], image.height / sample.size[1]
        left, top, right, bottom = view.box
        box = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
        shown = image.resize(sample.bucket, Image.Resampling.LANCZOS, box=box)
    made = np.asarray(shown)
    return np.ascontiguousarray(made[:, ::-1]) if view.flipped else made


def _triangular(luck: float) -> float:
    return sqrt(luck / 2) if luck < 0.5 else 1 - sqrt((1 - luck) / 2)


_PLASTIC = 1.2207440846057596
"""The root of x⁴ = x + 1, from which R3's steps derive."""
_STEPS = tuple(_PLASTIC**-power for power in (1, 2, 3))
