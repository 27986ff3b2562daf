"""Batches as tensors, made a few ahead of the step that takes them."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from train.ahead import ahead
from train.batches import Batch
from train.cache import LatentCache
from train.config import TrainConfig
from train.dataset import Dataset, Sample
from train.framing import Framing, View, content
from train.text import Texts
from train.wording import Wording


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
        self.framing, self.wording = Framing(config), Wording(config)

    def steps(self, batches: Iterable[Batch]) -> Generator[list[Ready]]:
        """The batches of each optimizer step."""
        ready = ahead(self._ready, batches, self.config.workers, 2 * self.config.workers)
        while group := list(islice(ready, self.config.accumulate)):
            yield group

    def _ready(self, batch: Batch) -> Ready:
        samples = [self.samples[place] for place in batch.samples]
        views = self.framing.choose(samples, batch.first)
        posteriors = torch.stack([self.latents.at(sample, view) for sample, view in zip(samples, views, strict=True)])
        texts = self.texts(self.wording.choose(samples, batch.first))
        scales = torch.tensor([sample.settings.loss_scale for sample in samples], dtype=torch.float32)
        inside = None
        if self.config.pad:
            inside = torch.stack([_inside(*it, posteriors.shape[3:]) for it in zip(samples, views, strict=True)])
        if self.pin:
            inside = None if inside is None else inside.pin_memory()
            return Ready(batch, posteriors.pin_memory(), texts.pin_memory(), scales.pin_memory(), inside)
        return Ready(batch, posteriors, texts, scales, inside)


def _inside(sample: Sample, view: View, shape: Sequence[int]) -> Tensor:
    """Which cells of a padded picture's latent, [h, w], show nothing but picture."""
    left, top, right, bottom = content(sample)
    if view.flipped:
        left, right = sample.bucket[0] - right, sample.bucket[0] - left
    down, across = sample.bucket[1] // shape[0], sample.bucket[0] // shape[1]
    cells = torch.zeros(*shape)
    rows, columns = (_whole(top, bottom, down), _whole(left, right, across))
    cells[rows, columns] = 1
    return cells


def _whole(start: int, stop: int, step: int) -> slice:
    """The cells that lie whole within; of a picture thinner than two cells, the one in its middle."""
    first, last = -(-start // step), stop // step
    return slice(first, last) if first < last else slice(middle := (start + stop) // 2 // step, middle + 1)
