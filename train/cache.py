"""Latents of pictures, kept by content: the same picture bytes, crop and VAE are encoded once, in whichever run.

    <folder>/<VAE and crop>/<random name>.safetensors     key → [2, C, h, w]: mean and deviation of the posterior

A key is the sha256 of the file with the bucket. A killed fill goes on where it stopped, and damaged entries are made
again (train.store).
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from base.pixels import PictureError, decode
from base.progress import Progress, silent
from train.ahead import ahead
from train.buckets import crop_box, enlargement
from train.dataset import Problem, Sample
from train.model import weights_digest
from train.store import Store

CROP = "centre-1"
"""Raised when pictures are cropped or resized in another way."""
GROUP_PIXELS = 2 * 2**20
"""Pixels encoded together: 8 pictures of 512 × 512. Fixed, because the last bits of a convolution may depend on it."""
GROUP_MOST = 64


class LatentCache:
    """The latents of samples, made where they are missing.

    Args:
        folder: where they are kept; None: in memory, for this process.
        vae: a diffusers AutoencoderKL or AutoencoderTiny, on its device.
    """

    def __init__(self, folder: Path | None, vae: Any) -> None:
        self.vae = vae
        self.store = Store(folder / f"{weights_digest(vae)}-{CROP}" if folder else None)
        self.keys: dict[Path, str] = {}

    def add(self, samples: Sequence[Sample], workers: int, progress: Progress = silent) -> list[Problem]:
        """Makes the latents of these samples, where they are not there.

        Returns:
            The samples that can't be decoded, and why.

        Raises:
            UserError: another process is filling the cache.
        """
        found, lost = [], []
        for sample, content in zip(samples, ahead(_content, samples, workers, 4 * workers), strict=True):
            if content is None:
                lost.append(Problem(sample.name, "missing_file"))
                continue
            self.keys[sample.path] = f"{content}-{sample.bucket[0]}x{sample.bucket[1]}"
            found.append(sample)
            progress(len(found) + len(lost), len(samples), "reading pictures")
        with self.store.filling(set(self.keys.values())):
            return lost + self._fill(found, workers, progress)

    def __getitem__(self, sample: Sample) -> Tensor:
        """Mean and deviation of a sample's posterior, float16 [2, C, h, w], on the processor."""
        return self.store.entries[self.keys[sample.path]]

    def _fill(self, samples: Sequence[Sample], workers: int, progress: Progress) -> list[Problem]:
        missing = {key: sample for sample in samples if (key := self.keys[sample.path]) not in self.store.entries}
        ordered = sorted(missing.values(), key=lambda sample: (sample.bucket, self.keys[sample.path]))
        broken: dict[str, str] = {}
        done = 0
        for group in self._encoded(ordered, workers):
            found = {self.keys[sample.path]: posterior for sample, posterior in group}
            broken |= {key: reason for key, reason in found.items() if isinstance(reason, str)}
            self.store.put({key: made for key, made in found.items() if not isinstance(made, str)})
            done += len(group)
            progress(done, len(ordered), "encoding pictures")
        return [Problem(sample.name, broken[key]) for sample in samples if (key := self.keys[sample.path]) in broken]

    def _encoded(self, ordered: Sequence[Sample], workers: int) -> Iterator[list[tuple[Sample, Tensor | str]]]:
        """Group after group: each sample with its posterior, or with the reason why it has none.

        Samples come sorted, and groups end where a bucket does. So a fill that goes on after a kill makes the same
        groups, and the same bits, as one that was left alone.
        """
        groups = [
            members[start : start + size]
            for (width, height), found in groupby(ordered, key=lambda sample: sample.bucket)
            for members, size in [(list(found), min(GROUP_MOST, max(1, GROUP_PIXELS // (width * height))))]
            for start in range(0, len(members), size)
        ]
        for group, pixels in zip(groups, ahead(_decode_all, groups, workers, workers + 1), strict=True):
            good = [found for found in pixels if not isinstance(found, str)]
            posteriors = iter(self._encode(np.stack(good)) if good else ())
            yield [
                (sample, found if isinstance(found, str) else next(posteriors))
                for sample, found in zip(group, pixels, strict=True)
            ]

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


def pixels(sample: Sample) -> np.ndarray[Any, Any]:
    """A sample decoded, cropped from the centre and resized to its bucket, uint8 [H, W, 3].

    Raises:
        PictureError: it can't be decoded.
    """
    scale = enlargement(sample.size, sample.bucket)
    image = decode(sample.path, at_least=ceil(min(sample.size) * scale) if scale < 1 else None)
    box = crop_box(image.size, sample.bucket)
    return np.asarray(image.resize(sample.bucket, Image.Resampling.LANCZOS, box=box))


def _content(sample: Sample) -> str | None:
    try:
        return hashlib.sha256(sample.path.read_bytes()).hexdigest()
    except OSError:
        return None


def _decode_all(samples: Sequence[Sample]) -> list[np.ndarray[Any, Any] | str]:
    found: list[np.ndarray[Any, Any] | str] = []
    for sample in samples:
        try:
            found.append(pixels(sample))
        except PictureError as error:
            found.append(error.reason)
    return found
