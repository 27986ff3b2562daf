"""Brings a loss mask into the views of its image, averaged over the cells of the latent."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, floor
from typing import Any

import numpy as np
import numpy.typing as npt

from dreamloom.base.images.pixels import decode, decode_alpha
from dreamloom.train.data.crops import Box, View, latent_mask, padded_image_box
from dreamloom.train.data.dataset import Sample

Cells = npt.NDArray[np.uint8]
"""How much each cell of a latent counts, 0 to 255, [h, w]."""


def render_masks(sample: Sample, views: Sequence[View], height: int, width: int) -> list[Cells]:
    """Decodes a sample's mask once, and averages it over the cells of the latent of each view.

    A pixel that an edge of a cell cuts counts for both cells in part. Cells that show padding count nothing.

    Args:
        sample: one that has a mask.
        views: of its image.
        height: of the latents, in cells.
        width: of the latents, in cells.

    Raises:
        ImageError: the mask can't be decoded.
    """
    pixels = _decode_mask(sample)
    return [_render(pixels, sample, view, height, width) for view in views]


def _decode_mask(sample: Sample) -> npt.NDArray[np.uint8]:
    assert sample.mask is not None
    file = sample.mask.source.decodable()
    if sample.mask.content == "alpha":
        return np.asarray(decode_alpha(file))
    return np.asarray(decode(file, background=(0, 0, 0)).convert("L"))


def _render(pixels: npt.NDArray[np.uint8], sample: Sample, view: View, height: int, width: int) -> Cells:
    left, top, right, bottom = _shown_box(sample, view)
    (image_width, image_height), (mask_height, mask_width) = sample.size, pixels.shape
    across = np.linspace(left, right, width + 1).clip(0, image_width) * (mask_width / image_width)
    down = np.linspace(top, bottom, height + 1).clip(0, image_height) * (mask_height / image_height)
    cells = _average(_average(pixels, down).T, across).T
    cells = cells[:, ::-1] if view.flipped else cells
    if view.pad_color:
        cells = cells * latent_mask(sample, view, height, width)
    return np.ascontiguousarray(cells.round().astype(np.uint8))


def _shown_box(sample: Sample, view: View) -> Box:
    """What the bucket shows, in pixels of the upright image; padding lies outside of the image."""
    if not view.pad_color:
        return view.box
    left, top, right, bottom = padded_image_box(sample)
    across, down = sample.size[0] / (right - left), sample.size[1] / (bottom - top)
    return -left * across, -top * down, (sample.bucket[0] - left) * across, (sample.bucket[1] - top) * down


def _average(values: npt.NDArray[Any], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Averages rows between consecutive edges; 0 where two edges are the same."""
    averages = np.zeros((len(edges) - 1, values.shape[1]))
    for cell, (start, stop) in enumerate(pairwise(edges.tolist())):
        if start < stop:
            rows = np.arange(floor(start), min(ceil(stop), len(values)))
            shares = np.minimum(rows + 1, stop) - np.maximum(rows, start)
            averages[cell] = shares @ values[rows[0] : rows[-1] + 1] / shares.sum()
    return averages
