"""The words an image is shown with: its caption, with its tags in another order, or without any."""

from collections.abc import Mapping, Sequence

import numpy as np

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Sample
from dreamloom.train.diffusion.rng import stream_key, uniform


class CaptionBuilder:
    """Which caption each of a run's samples has: a function of the seed and the sample's index."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.dropout = stream_key(config.seed, "caption dropout")

    def fixed_captions(self, samples: Sequence[Sample]) -> list[str]:
        """The captions that are known before the run: the empty one, and those of images whose tags stay put."""
        return ["", *(sample.caption for sample in samples if not self._shuffles(sample))]

    def build(self, samples: Sequence[Sample], first: int) -> list[str]:
        """The captions of the samples whose indices go from `first` on."""
        luck = uniform(self.dropout, np.arange(first, first + len(samples))).tolist()
        return [
            "" if lucky < self._share(sample) else self._worded(sample, index)
            for sample, lucky, index in zip(samples, luck, range(first, first + len(samples)), strict=True)
        ]

    def _share(self, sample: Sample) -> float:
        dropout = sample.settings.cond_dropout
        return self.config.caption_dropout_rate if dropout is None else dropout

    def _shuffles(self, sample: Sample) -> bool:
        wanted = sample.settings.shuffle_tags
        return self.config.shuffle_tags if wanted is None else wanted

    def _worded(self, sample: Sample, index: int) -> str:
        if not self._shuffles(sample):
            return sample.caption
        key = stream_key(self.config.seed, "tags", index)
        weights, most = dict(sample.image.tag_weights), sample.settings.max_caption_length
        return shuffle_tags(sample.caption, self.config.keep_tags, key, weights, most)


def shuffle_tags(
    caption: str,
    keep_tags: int,
    key: int,
    tag_weights: Mapping[str, float] | None = None,
    max_length: int | None = None,
) -> str:
    """A caption whose tags, what follows its first comma, stand in another order.

    Tags are drawn without replacement, each with a chance like its weight (Efraimidis and Spirakis 2006).

    Args:
        keep_tags: how many tags after the main prompt stay where they are.
        key: names the order.
        tag_weights: of tags that have one other than 1.
        max_length: characters; a tag that would make the caption longer is left out.
    """
    parts = [part.strip() for part in caption.split(",")]
    start, tags = parts[: 1 + keep_tags], [part for part in parts[1 + keep_tags :] if part]
    luck = uniform(key, np.arange(len(tags))).tolist()
    times = [-np.log1p(-u) / max((tag_weights or {}).get(tag, 1.0), 1e-9) for tag, u in zip(tags, luck, strict=True)]
    made = ", ".join(start)
    for _, tag in sorted(zip(times, tags, strict=True)):
        longer = f"{made}, {tag}"
        if max_length is None or len(longer) <= max_length:
            made = longer
    return made
