"""Latents of images, kept by content: the same image bytes, crop and VAE are encoded once, in whichever run.

    <folder>/<VAE>-2/<random name>.safetensors     key → [2, C, h, w]: mean and deviation of the posterior

A key is the sha256 of the file, with the bucket and the view. A killed fill goes on where it stopped, and damaged
entries are made again (dreamloom.train.data.tensor_store).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamloom.base.pixels import ImageError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.threads import map_ordered
from dreamloom.train.data.crops import View, center_view, render_views
from dreamloom.train.data.dataset import Problem, Sample
from dreamloom.train.data.image import ByteRange
from dreamloom.train.data.tensor_store import TensorStore
from dreamloom.train.model.model import hash_weights

VERSION = "2"
"""Raised when images are decoded, resized or stored in another way."""
GROUP_PIXELS = 2 * 2**20
"""Pixels encoded together: 8 images of 512 × 512. Fixed, because the last bits of a convolution may depend on it."""
GROUP_MAX_IMAGES = 16

Shown = tuple[Sample, View]
Keyed = tuple[str, Sample, View]
Views = Callable[[Sample], Sequence[View]]


def center_view_only(sample: Sample) -> list[View]:
    """The plain view alone."""
    return [center_view(sample)]


class LatentCache:
    """The latents of samples, made where they are missing.

    Args:
        folder: where they are kept; None: in memory, for this process.
        vae: a diffusers AutoencoderKL or AutoencoderTiny, on its device.
    """

    def __init__(self, folder: Path | None, vae: Any) -> None:
        self.vae = vae
        self.store = TensorStore(folder / f"{hash_weights(vae)}-{VERSION}" if folder else None)
        self.content_hashes: dict[ByteRange, str] = {}

    def add(
        self, samples: Sequence[Sample], num_workers: int, progress: Progress = silent, views: Views = center_view_only
    ) -> list[Problem]:
        """Makes the latents of these samples in all their views, where they are not there.

        Returns:
            The samples that can't be decoded, and why.

        Raises:
            UserError: another process is filling the cache.
        """
        found, lost = [], []
        for sample, content in zip(samples, map_ordered(_content, samples, num_workers, 4 * num_workers), strict=True):
            if content is None:
                lost.append(Problem(sample.name, "missing_file"))
                continue
            self.content_hashes[sample.image.source] = content
            found.append(sample)
            progress(len(found) + len(lost), len(samples), "reading pictures")
        wanted = {self.key(sample, view): (sample, view) for sample in found for view in views(sample)}
        with self.store.filling(set(wanted), progress):
            broken = self._fill(wanted, num_workers, progress)
        return lost + [Problem(s.name, reason) for s in found if (reason := broken.get(self._content_of(s)))]

    def key(self, sample: Sample, view: View | None = None) -> str:
        """Names a sample's content, shown in a view; none: the plain one."""
        width, height = sample.bucket
        return f"{self._content_of(sample)}-{width}x{height}-{view or center_view(sample)}"

    def get(self, sample: Sample, view: View) -> Tensor:
        """Mean and deviation of the posterior of a sample in a view, float16 [2, C, h, w], on the processor."""
        return self.store.entries[self.key(sample, view)]

    def _content_of(self, sample: Sample) -> str:
        return self.content_hashes[sample.image.source]

    def _fill(self, wanted: Mapping[str, Shown], num_workers: int, progress: Progress) -> dict[str, str]:
        """Makes what is missing, and returns what can't be: content → reason."""
        keys = sorted(set(wanted) - set(self.store.entries), key=lambda key: (wanted[key][0].bucket, key))
        broken: dict[str, str] = {}
        done = 0
        for group, posteriors in self._encoded([(key, *wanted[key]) for key in keys], num_workers):
            entries: dict[str, Tensor] = {}
            for (key, sample, _), made in zip(group, posteriors, strict=True):
                if isinstance(made, str):
                    broken[self._content_of(sample)] = made
                else:
                    entries[key] = made
            self.store.put(entries)
            done += len(group)
            progress(done, len(keys), "encoding pictures")
        return broken

    def _encoded(
        self, ordered: Sequence[Keyed], num_workers: int
    ) -> Iterator[tuple[Sequence[Keyed], list[Tensor | str]]]:
        """Group after group: the posteriors, or the reasons why there are none.

        What is to be made comes sorted, and groups end where a bucket does. So a fill that goes on after a kill makes
        the same groups, and the same bits, as one that was left alone.
        """
        groups = [
            members[start : start + size]
            for (width, height), found in groupby(ordered, key=lambda one: one[1].bucket)
            for members, size in [(list(found), min(GROUP_MAX_IMAGES, max(1, GROUP_PIXELS // (width * height))))]
            for start in range(0, len(members), size)
        ]
        for group, pictures in zip(groups, map_ordered(_decode_all, groups, num_workers, num_workers + 1), strict=True):
            good = [found for found in pictures if not isinstance(found, str)]
            posteriors = iter(self._encode(np.stack(good)) if good else ())
            yield group, [found if isinstance(found, str) else next(posteriors) for found in pictures]

    @torch.no_grad()
    def _encode(self, pixels: np.ndarray[Any, Any]) -> Tensor:
        """uint8 [n, H, W, 3] → float16 [n, 2, C, h, w]. A VAE without a posterior has deviation 0."""
        picture = torch.from_numpy(pixels).to(self.vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        encoded = self.vae.encode(picture.contiguous(memory_format=torch.channels_last))
        if hasattr(encoded, "latent_dist"):
            both = torch.stack([encoded.latent_dist.mean, encoded.latent_dist.std], dim=1)
        else:
            both = torch.stack([encoded.latents, torch.zeros_like(encoded.latents)], dim=1)
        return both.half().contiguous().cpu()


def _content(sample: Sample) -> str | None:
    try:
        return hashlib.sha256(sample.image.source.read()).hexdigest()
    except ImageError:
        return None


def _decode_all(group: Sequence[Keyed]) -> list[np.ndarray[Any, Any] | str]:
    """The pixels of each, or why there are none; an image that comes in several views is decoded once."""
    made: list[np.ndarray[Any, Any] | str] = []
    for _, found in groupby(group, key=lambda one: one[1].image.source):
        shown = list(found)
        try:
            made += render_views(shown[0][1], [view for _, _, view in shown])
        except ImageError as error:
            made += [error.reason] * len(shown)
    return made
