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


@dataclass(frozen=True)
class Ready:
    """A batch on the processor, pinned where there is a GPU."""

    batch: Batch
    posteriors: Tensor
    """Mean and deviation of the pictures' latents, float16 [B, 2, C, h, w]."""
    captions: Tensor
    """Numbers of their captions, int64 [B]; a caption that was dropped is number 0, the empty one."""


class Loader:
    """Makes batches ready. What it makes depends on the batch alone, not on workers or on what came before."""

    def __init__(self, dataset: Dataset, latents: LatentCache, config: TrainConfig, pin: bool) -> None:
        self.samples = dataset.samples
        self.latents = latents
        self.config = config
        self.pin = pin
        self.captions = ["", *sorted({sample.caption for sample in dataset.samples} - {""})]
        numbers = {caption: number for number, caption in enumerate(self.captions)}
        self.numbers = np.array([numbers[sample.caption] for sample in dataset.samples], np.int64)
        self.dropout = stream(config.seed, "caption dropout")

    def steps(self, batches: Iterable[Batch]) -> Generator[list[Ready]]:
        """The batches of each optimizer step."""
        ready = ahead(self._ready, batches, self.config.workers, 2 * self.config.workers)
        while group := list(islice(ready, self.config.accumulate)):
            yield group

    def _ready(self, batch: Batch) -> Ready:
        posteriors = torch.stack([self.latents[self.samples[place]] for place in batch.samples])
        chosen = self.numbers[list(batch.samples)]
        luck = uniform(self.dropout, np.arange(batch.first, batch.first + len(chosen)))
        captions = torch.from_numpy(np.where(luck < self.config.caption_dropout, 0, chosen))
        if self.pin:
            return Ready(batch, posteriors.pin_memory(), captions.pin_memory())
        return Ready(batch, posteriors, captions)
