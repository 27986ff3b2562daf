"""Latents of images, cached by content: the same image bytes, view and VAE are encoded once, in whichever run.

    <folder>/<VAE>-2/<random name>.safetensors     key → [2, C, h, w]: mean and standard deviation of the posterior
                                                   key of a mask → [h, w]: how much each cell counts in the loss

A key is the sha256 of the file, with the bucket and the view; that of a mask also holds the mask's sha256. A killed
fill goes on where it stopped. Entries are checked when they are asked for, and damaged ones are encoded again
(`dreamloom.train.data.tensor_store`).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamloom.base.errors import UserError
from dreamloom.base.files.file_index import ContentHashes
from dreamloom.base.files.remote_files import changed
from dreamloom.base.images.pixels import ImageError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.threads import map_ordered
from dreamloom.train.data.crops import View, center_view, render_views
from dreamloom.train.data.dataset import Problem, Sample
from dreamloom.train.data.masks import render_masks
from dreamloom.train.data.tensor_store import DamagedError, TensorStore
from dreamloom.train.model.model import hash_weights

VERSION = "2"
"""Raised when images are decoded, resized or stored in another way."""
GROUP_PIXELS = 2 * 2**20
"""Pixels encoded together: 8 images of 512 × 512. Fixed, because the last bits of a convolution may depend on it."""
GROUP_MAX_IMAGES = 16
_LOOKED_UP = 1024
"""Samples whose entries are looked up together."""

Entry = tuple[str, Sample, View]
"""A key of the cache, and what is shown under it."""
ListViews = Callable[[Sample], Sequence[View]]


def center_view_only(sample: Sample) -> list[View]:
    """Lists the center view alone."""
    return [center_view(sample)]


class LatentCache:
    """The latents of samples, encoded where they are missing.

    Args:
        folder: where they are kept; None: in memory, for this process.
        vae: a diffusers AutoencoderKL or AutoencoderTiny, on its device.
        contents: the hashes of images' files that are known; None: none is.
    """

    def __init__(self, folder: Path | None, vae: Any, contents: ContentHashes | None = None) -> None:
        """Opens the cache of this VAE; reads nothing yet."""
        self.vae = vae
        tiled = "-tiled" if getattr(vae, "use_tiling", False) else ""
        self.store = TensorStore(folder / f"{hash_weights(vae)}{tiled}-{VERSION}" if folder else None)
        self.contents = contents or ContentHashes()
        self._repairing = RLock()

    def add(
        self,
        samples: Sequence[Sample],
        num_workers: int,
        progress: Progress = silent,
        views: ListViews = center_view_only,
    ) -> list[Problem]:
        """Encodes samples in all their views, where they are missing.

        Args:
            samples: the samples.
            num_workers: threads that decode images.
            progress: called with the number of images read, if they are not known, then of those encoded.
            views: lists the views of a sample.

        Returns:
            The samples that can't be decoded, with the reason.

        Raises:
            UserError: another process is filling the cache.
        """
        self.contents.learn((sample.image.source for sample in samples), progress)
        broken = {s.name: "missing_file" for s in samples if not self.contents.get(s.image.source)}
        readable = [sample for sample in samples if sample.name not in broken] if broken else samples
        self.store.look_through(progress)
        missing = self._list_missing(readable, views)
        with self.store.filling(list(missing), progress):
            reasons = self._fill(missing, num_workers, progress)
        if reasons:
            broken |= {s.name: reasons[h] for s in readable if (h := self._content_hash(s)) in reasons}
        masked = [sample for sample in readable if sample.mask and sample.name not in broken]
        problems = [Problem(name, reason) for name, reason in broken.items()]
        return problems + self._add_masks(masked, num_workers, progress, views)

    def key(self, sample: Sample, view: View | None = None) -> str:
        """Returns the key of a sample in a view; None: the center view."""
        width, height = sample.bucket
        return f"{self._content_hash(sample)}-{width}x{height}-{view or center_view(sample)}"

    def get(self, sample: Sample, view: View) -> Tensor:
        """Returns mean and standard deviation of the posterior of a sample in a view.

        Returns:
            float16 [2, C, h, w], on the CPU.

        Raises:
            KeyError: it was not added.
            UserError: it is damaged, and can't be encoded again.
        """
        return self._get(self.key(sample, view), sample, view)

    def get_mask(self, sample: Sample, view: View) -> Tensor | None:
        """Returns how much each cell of a sample's latent counts in a view.

        Returns:
            uint8 [h, w], 255: in full, on the CPU; None where the sample has no mask.

        Raises:
            KeyError: it was not added.
            UserError: it is damaged, and can't be rendered again.
        """
        return self._get(self._mask_key(sample, view), sample, view) if sample.mask else None

    def _get(self, key: str, sample: Sample, view: View) -> Tensor:
        """Returns an entry; one that turns out to be damaged is computed again, from the image alone."""
        try:
            return self.store[key]
        except DamagedError:
            with self._repairing:
                problems = self.add([sample], 1, views=lambda _: [view])
        if problems:
            raise UserError(
                f"The latent of {sample.name} in {self.store.folder} is damaged, and the image can't be read any more "
                f"({problems[0].reason}); restore the image, and run again."
            )
        return self.store[key]

    def _list_missing(self, samples: Sequence[Sample], views: ListViews) -> dict[str, Entry]:
        missing: dict[str, Entry] = {}
        for start in range(0, len(samples), _LOOKED_UP):
            chunk = samples[start : start + _LOOKED_UP]
            entries = {key: (key, s, view) for s in chunk for view in views(s) for key in [self.key(s, view)]}
            missing |= {key: entries[key] for key in self.store.missing(list(entries))}
        return missing

    def _mask_key(self, sample: Sample, view: View) -> str:
        assert sample.mask is not None
        return f"{self.key(sample, view)}-mask-{sample.mask.content}"

    def _add_masks(
        self, samples: Sequence[Sample], num_workers: int, progress: Progress, list_views: ListViews
    ) -> list[Problem]:
        """Renders the masks that are missing; returns the samples whose mask is broken, or hides a whole view."""
        views = [list_views(sample) for sample in samples]
        keys = [[self._mask_key(sample, view) for view in shown] for sample, shown in zip(samples, views, strict=True)]
        problems = []
        missing = [place for place, wanted in enumerate(keys) if self.store.missing(wanted)]
        sizes = {place: self.get(samples[place], views[place][0]).shape[-2:] for place in missing}
        with self.store.filling(list(chain.from_iterable(keys)), progress):
            rendered = map_ordered(
                lambda place: _render_masks(samples[place], views[place], *sizes[place]),
                missing,
                num_workers,
                2 * num_workers,
            )
            for place, masks in zip(missing, rendered, strict=True):
                if masks is None:
                    problems.append(Problem(samples[place].name, "broken_mask"))
                else:
                    self.store.put(dict(zip(keys[place], masks, strict=True)))
        broken = {problem.name for problem in problems}
        for sample, shown in zip(samples, views, strict=True):
            if sample.name not in broken and not all(self._masks_something(sample, view) for view in shown):
                problems.append(Problem(sample.name, "empty_mask"))
        return problems

    def _masks_something(self, sample: Sample, view: View) -> bool:
        mask = self.get_mask(sample, view)
        return mask is None or bool(mask.any())

    def _content_hash(self, sample: Sample) -> str:
        content = self.contents.get(sample.image.source)
        if content is None:
            raise KeyError(sample.name)
        return content

    def _fill(self, entries: Mapping[str, Entry], num_workers: int, progress: Progress) -> dict[str, str]:
        """Encodes what is missing; returns what can't be decoded: content hash → reason."""
        missing = [entries[key] for key in self.store.missing(list(entries))]
        missing.sort(key=lambda entry: (entry[1].bucket, entry[0]))
        broken: dict[str, str] = {}
        done = 0
        for group, posteriors in self._encode_groups(missing, num_workers):
            encoded: dict[str, Tensor] = {}
            for (key, sample, _), posterior in zip(group, posteriors, strict=True):
                if isinstance(posterior, str):
                    broken[self._content_hash(sample)] = posterior
                else:
                    encoded[key] = posterior
            self.store.put(encoded)
            done += len(group)
            progress(done, len(missing), "encoding images")
        return broken

    def _encode_groups(
        self, entries: Sequence[Entry], num_workers: int
    ) -> Iterator[tuple[Sequence[Entry], list[Tensor | str]]]:
        """Encodes entries group by group: to posteriors, or the reasons why there are none.

        The entries come sorted, and groups end where a bucket does. So a fill that goes on after a kill makes the same
        groups, and the same bits, as one that was not killed.
        """
        groups = [
            members[start : start + size]
            for (width, height), same_bucket in groupby(entries, key=lambda entry: entry[1].bucket)
            for members, size in [(list(same_bucket), min(GROUP_MAX_IMAGES, max(1, GROUP_PIXELS // (width * height))))]
            for start in range(0, len(members), size)
        ]
        decoded = map_ordered(_decode_group, groups, num_workers, num_workers + 1)
        for group, images in zip(groups, decoded, strict=True):
            whole = [image for image in images if not isinstance(image, str)]
            posteriors = iter(self._encode(np.stack(whole)) if whole else ())
            yield group, [image if isinstance(image, str) else next(posteriors) for image in images]

    @torch.no_grad()
    def _encode(self, pixels: np.ndarray[Any, Any]) -> Tensor:
        """uint8 [n, H, W, 3] → float16 [n, 2, C, h, w]; a VAE without a posterior has the standard deviation 0."""
        images = torch.from_numpy(pixels).to(self.vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        encoded = self.vae.encode(images.contiguous(memory_format=torch.channels_last))
        if hasattr(encoded, "latent_dist"):
            posteriors = torch.stack([encoded.latent_dist.mean, encoded.latent_dist.std], dim=1)
        else:
            posteriors = torch.stack([encoded.latents, torch.zeros_like(encoded.latents)], dim=1)
        return posteriors.half().contiguous().cpu()


def _render_masks(sample: Sample, views: Sequence[View], height: int, width: int) -> list[Tensor] | None:
    try:
        return [torch.from_numpy(mask) for mask in render_masks(sample, views, height, width)]
    except ImageError:
        return None


def _decode_group(group: Sequence[Entry]) -> list[np.ndarray[Any, Any] | str]:
    """The pixels of each entry, or why there are none; an image with several views is decoded once.

    Raises:
        UserError: a shard has other bytes than when they were hashed.
    """
    pixels: list[np.ndarray[Any, Any] | str] = []
    for _, same_image in groupby(group, key=lambda entry: entry[1].image.source):
        entries = list(same_image)
        key, sample, _ = entries[0]
        try:
            data = sample.image.source.decodable()
            if isinstance(data, bytes) and not key.startswith(hashlib.sha256(data).hexdigest()):
                raise changed(sample.image.source.file)
            pixels += render_views(sample, [view for _, _, view in entries], data)
        except ImageError as error:
            pixels += [error.reason] * len(entries)
    return pixels
