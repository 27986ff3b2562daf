"""Batches as tensors, prepared a few ahead of the step that takes them."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from dreamloom.base.threads import map_ordered
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import CaptionBuilder, with_class_word
from dreamloom.train.data.crops import CropPlanner, View, latent_mask, micro_conditioning
from dreamloom.train.data.dataset import Dataset, Sample, find_ground_truth
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.schedule import Batch
from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.model.text import Text


@dataclass(frozen=True)
class LoadedBatch:
    """A batch on the CPU, in pinned memory where there is a GPU."""

    batch: Batch
    posteriors: Tensor
    """Mean and standard deviation of the images' latents, float16 [B, 2, C, h, w]."""
    text: Text
    """See `dreamloom.train.data.text_cache.TextCache.get`."""
    sizes: Tensor
    """Of each image, as `dreamloom.train.model.text.Condition` has them, float32 [B, 6]."""
    indices: Tensor
    """The run's index of each image, int64 [B]."""
    loss_scales: Tensor
    """The factors of the images' losses, float32 [B]; 0 for padding."""
    loss_mask: Tensor | None
    """How much each pixel of the latents counts, 0 to 1, float32 [B, h, w]; None: all alike."""
    is_ground_truth: Tensor
    """Which images are of the config's ground_truth, bool [B]; stays on the CPU."""
    class_text: Text | None = None
    """The captions with class_word in place of concept_word, as `text`; None: no objective asks for them."""
    has_class_text: Tensor | None = None
    """In which captions concept_word stands, bool [B]; stays on the CPU."""
    blank_text: Text | None = None
    """The empty caption for each image, as `text`; None: no objective asks for it."""

    def pinned(self) -> "LoadedBatch":
        """Copies the batch to pinned memory, from which a GPU fetches it while the CPU goes on."""
        return replace(
            self,
            posteriors=self.posteriors.pin_memory(),
            text=self.text.map(Tensor.pin_memory),
            sizes=self.sizes.pin_memory(),
            indices=self.indices.pin_memory(),
            loss_scales=self.loss_scales.pin_memory(),
            loss_mask=None if self.loss_mask is None else self.loss_mask.pin_memory(),
        )


class BatchLoader:
    """Loads batches. A loaded batch depends on the batch alone, not on workers or on what came before.

    Args:
        dataset: what is trained on.
        latent_cache: holds the latents of all its views.
        text_cache: makes captions into tensors.
        config: the run's; of it count crops, captions, accumulation and workers.
        pin: whether to pin the memory of batches, for a GPU.
    """

    def __init__(
        self, dataset: Dataset, latent_cache: LatentCache, text_cache: TextCache, config: TrainConfig, pin: bool
    ) -> None:
        """Keeps the arguments; loads nothing yet."""
        self.samples = dataset.samples
        self.latent_cache = latent_cache
        self.text_cache = text_cache
        self.config = config
        self.pin = pin
        self.ground_truth = find_ground_truth(dataset, config)
        self.crop_planner, self.caption_builder = CropPlanner(config), CaptionBuilder(config)

    def steps(self, steps: Iterable[Sequence[Batch]]) -> Generator[list[LoadedBatch]]:
        """Loads the batches of each optimizer step, in threads."""
        sizes: deque[int] = deque()

        def batches() -> Iterator[Batch]:
            for step in steps:
                sizes.append(len(step))
                yield from step

        loaded = map_ordered(self._load, batches(), self.config.num_workers, 2 * self.config.num_workers)
        for first in loaded:
            yield [first, *islice(loaded, sizes.popleft() - 1)]

    def _load(self, batch: Batch) -> LoadedBatch:
        samples = [self.samples[sample_id] for sample_id in batch.sample_ids]
        views = self.crop_planner.choose_views(samples, batch.indices)
        latents = [self.latent_cache.get(sample, view) for sample, view in zip(samples, views, strict=True)]
        posteriors = torch.stack(latents)
        captions = self.caption_builder.build(samples, batch.indices)
        text = self.text_cache.get(captions)
        indices = torch.tensor(batch.indices)
        loss_scales = torch.tensor([sample.settings.loss_scale for sample in samples], dtype=torch.float32)
        loss_scales[len(samples) - batch.padding :] = 0
        mask = loss_masks(samples, views, self.latent_cache, self.config.unmasked_weight)
        is_ground_truth = torch.tensor([sample.folder_index in self.ground_truth for sample in samples])
        sizes = micro_conditioning(samples, views, self.config.micro_conditioning)
        loaded = LoadedBatch(batch, posteriors, text, sizes, indices, loss_scales, mask, is_ground_truth)
        loaded = self._with_other_texts(loaded, captions)
        return loaded.pinned() if self.pin else loaded

    def _with_other_texts(self, loaded: LoadedBatch, captions: list[str]) -> LoadedBatch:
        """Adds the captions that objectives of preservation ask for."""
        if self.config.class_preservation:
            others = [with_class_word(caption, self.config) for caption in captions]
            has_word = torch.tensor([one != other for one, other in zip(captions, others, strict=True)])
            loaded = replace(loaded, class_text=self.text_cache.get(others), has_class_text=has_word)
        if self.config.blank_preservation:
            loaded = replace(loaded, blank_text=self.text_cache.get([""] * len(captions)))
        return loaded


def loss_masks(
    samples: Sequence[Sample], views: Sequence[View], latent_cache: LatentCache, unmasked_weight: float
) -> Tensor | None:
    """Computes how much each pixel of images' latents counts: not at all in padding, else as the image's mask says.

    Args:
        samples: B samples of one bucket.
        views: the view of each.
        latent_cache: holds their latents and masks.
        unmasked_weight: the least weight of what is no padding.

    Returns:
        0 to 1, float32 [B, h, w]; None: all count alike.
    """
    masks = [latent_cache.get_mask(sample, view) for sample, view in zip(samples, views, strict=True)]
    if not any(view.pad_color for view in views) and all(mask is None for mask in masks):
        return None
    height, width = latent_cache.get(samples[0], views[0]).shape[-2:]
    weights = torch.ones(len(samples), height, width)
    for place, (sample, view, mask) in enumerate(zip(samples, views, masks, strict=True)):
        if mask is not None:
            weights[place] = (mask.float() / 255).clamp(min=unmasked_weight)
        if view.pad_color:
            weights[place] *= torch.from_numpy(latent_mask(sample, view, height, width))
    return weights
