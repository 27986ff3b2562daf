"""Batches as tensors, made a few ahead of the step that takes them."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from dreamloom.base.threads import map_ordered
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import Wording
from dreamloom.train.data.crops import Framing, View, cells_inside
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.schedule import Batch
from dreamloom.train.data.text_cache import Texts


@dataclass(frozen=True)
class Ready:
    """A batch on the processor, pinned where there is a GPU."""

    batch: Batch
    posteriors: Tensor
    """Mean and deviation of the pictures' latents, float16 [B, 2, C, h, w]."""
    texts: Tensor
    """See dreamloom.train.data.text_cache.Texts."""
    scales: Tensor
    """What the pictures' losses are multiplied by, float32 [B]."""
    inside: Tensor | None
    """Which cells of the latents count, 0 or 1, float32 [B, h, w]; None: all."""

    def pinned(self) -> "Ready":
        """Itself where a GPU fetches it from while the processor goes on."""
        inside = None if self.inside is None else self.inside.pin_memory()
        tensors = (self.posteriors.pin_memory(), self.texts.pin_memory(), self.scales.pin_memory())
        return Ready(self.batch, *tensors, inside)


class Loader:
    """Makes batches ready. What it makes depends on the batch alone, not on workers or on what came before."""

    def __init__(self, dataset: Dataset, latents: LatentCache, texts: Texts, config: TrainConfig, pin: bool) -> None:
        self.samples = dataset.samples
        self.latents = latents
        self.texts = texts
        self.config = config
        self.pin = pin
        self.framing, self.wording = Framing(config), Wording(config)

    def steps(self, batches: Iterable[Batch]) -> Generator[list[Ready]]:
        """The batches of each optimizer step."""
        ready = map_ordered(self._ready, batches, self.config.num_workers, 2 * self.config.num_workers)
        while group := list(islice(ready, self.config.gradient_accumulation_steps)):
            yield group

    def _ready(self, batch: Batch) -> Ready:
        samples = [self.samples[place] for place in batch.samples]
        views = self.framing.choose(samples, batch.first)
        posteriors = torch.stack([self.latents.at(sample, view) for sample, view in zip(samples, views, strict=True)])
        texts = self.texts(self.wording.choose(samples, batch.first))
        scales = torch.tensor([sample.settings.loss_scale for sample in samples], dtype=torch.float32)
        inside = masks(samples, views, posteriors) if self.config.pad_color else None
        ready = Ready(batch, posteriors, texts, scales, inside)
        return ready.pinned() if self.pin else ready


def masks(samples: Sequence[Sample], views: Sequence[View], latents: Tensor) -> Tensor:
    """Which cells of padded pictures' latents [B, ..., h, w] count, 0 or 1, float32 [B, h, w]."""
    height, width = latents.shape[-2:]
    shown = zip(samples, views, strict=True)
    return torch.from_numpy(np.stack([cells_inside(sample, view, height, width) for sample, view in shown]))
