"""Batches as tensors, made a few ahead of the step that takes them."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from train.ahead import ahead
from train.batches import Batch
from train.cache import LatentCache
from train.config import TrainConfig
from train.dataset import Dataset
from train.rng import stream, uniform
from train.text import Texts


@dataclass(frozen=True)
class Ready:
    """A batch on the processor, pinned where there is a GPU."""

    batch: Batch
    posteriors: Tensor
    """Mean and deviation of the pictures' latents, float16 [B, 2, C, h, w]."""
    texts: Tensor
    """See train.text.Texts."""
    scales: Tensor
    """What the pictures' losses are multiplied by, float32 [B]."""
    inside: Tensor | None
    """Which cells of the latents count, 0 or 1, float32 [B, h, w]; None: all."""


class Loader:
    """Makes batches ready. What it makes depends on the batch alone, not on workers or on what came before."""

    def __init__(self, dataset: Dataset, latents: LatentCache, texts: Texts, config: TrainConfig, pin: bool) -> None:
        self.samples = dataset.samples
        self.latents = latents
        self.texts = texts
        self.config = config
        self.pin = pin
        self.dropout = stream(config.seed, "caption dropout")

    def steps(self, batches: Iterable[Batch]) -> Generator[list[Ready]]:
        """The batches of each optimizer step."""
        ready = ahead(self._ready, batches, self.config.workers, 2 * self.config.workers)
        while group := list(islice(ready, self.config.accumulate)):
            yield group

    def _ready(self, batch: Batch) -> Ready:
        samples = [self.samples[place] for place in batch.samples]
        posteriors = torch.stack([self.latents[sample] for sample in samples])
        dropped = (
            uniform(self.dropout, np.arange(batch.first, batch.first + len(samples))) < self.config.caption_dropout
        )
        texts = self.texts(["" if drop else sample.caption for sample, drop in zip(samples, dropped, strict=True)])
        scales = torch.ones(len(samples))
        if self.pin:
            return Ready(batch, posteriors.pin_memory(), texts.pin_memory(), scales.pin_memory(), None)
        return Ready(batch, posteriors, texts, scales, None)
