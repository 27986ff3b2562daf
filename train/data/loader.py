"""Batches as tensors, made a few ahead of the step that takes them."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from dreamloom.base.threads import map_ordered
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import CaptionBuilder
from dreamloom.train.data.crops import CropPlanner, View, latent_mask
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.schedule import Batch
from dreamloom.train.data.text_cache import TextCache


@dataclass(frozen=True)
class LoadedBatch:
    """A batch on the processor, pinned where there is a GPU."""

    batch: Batch
    posteriors: Tensor
    """Mean and deviation of the pictures' latents, float16 [B, 2, C, h, w]."""
    text: Tensor
    """See dreamloom.train.data.text_cache.TextCache."""
    loss_scales: Tensor
    """What the pictures' losses are multiplied by, float32 [B]."""
    loss_mask: Tensor | None
    """Which cells of the latents count, 0 or 1, float32 [B, h, w]; None: all."""

    def pinned(self) -> "LoadedBatch":
        """Itself where a GPU fetches it from while the processor goes on."""
        inside = None if self.loss_mask is None else self.loss_mask.pin_memory()
        tensors = (self.posteriors.pin_memory(), self.text.pin_memory(), self.loss_scales.pin_memory())
        return LoadedBatch(self.batch, *tensors, inside)


class BatchLoader:
    """Makes batches ready. What it makes depends on the batch alone, not on workers or on what came before."""

    def __init__(
        self, dataset: Dataset, latent_cache: LatentCache, text_cache: TextCache, config: TrainConfig, pin: bool
    ) -> None:
        self.samples = dataset.samples
        self.latent_cache = latent_cache
        self.text_cache = text_cache
        self.config = config
        self.pin = pin
        self.crop_planner, self.caption_builder = CropPlanner(config), CaptionBuilder(config)

    def steps(self, batches: Iterable[Batch]) -> Generator[list[LoadedBatch]]:
        """The batches of each optimizer step."""
        ready = map_ordered(self._ready, batches, self.config.num_workers, 2 * self.config.num_workers)
        while group := list(islice(ready, self.config.gradient_accumulation_steps)):
            yield group

    def _ready(self, batch: Batch) -> LoadedBatch:
        samples = [self.samples[place] for place in batch.sample_ids]
        views = self.crop_planner.choose_views(samples, batch.first_index)
        posteriors = torch.stack(
            [self.latent_cache.get(sample, view) for sample, view in zip(samples, views, strict=True)]
        )
        texts = self.text_cache.get(self.caption_builder.build(samples, batch.first_index))
        scales = torch.tensor([sample.settings.loss_scale for sample in samples], dtype=torch.float32)
        inside = loss_masks(samples, views, posteriors) if self.config.pad_color else None
        ready = LoadedBatch(batch, posteriors, texts, scales, inside)
        return ready.pinned() if self.pin else ready


def loss_masks(samples: Sequence[Sample], views: Sequence[View], latents: Tensor) -> Tensor:
    """Which cells of padded pictures' latents [B, ..., h, w] count, 0 or 1, float32 [B, h, w]."""
    height, width = latents.shape[-2:]
    shown = zip(samples, views, strict=True)
    return torch.from_numpy(np.stack([latent_mask(sample, view, height, width) for sample, view in shown]))
