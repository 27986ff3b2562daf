"""The captions that samples are shown with: as written, with shuffled tags, or dropped."""

from collections.abc import Mapping, Sequence

import numpy as np

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Sample
from dreamloom.train.diffusion.rng import stream_key, uniform


class CaptionBuilder:
    """Chooses the caption of each of a run's samples: a function of the seed and the sample's index.

    Args:
        config: the run's; of it count caption dropout, tags and seed.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Derives the key of the dropout's random numbers."""
        self.config = config
        self.dropout_key = stream_key(config.seed, "caption dropout")

    def fixed_captions(self, samples: Sequence[Sample]) -> list[str]:
        """Lists the captions that are known before the run: the empty one, and those without shuffled tags."""
        return ["", *(sample.caption for sample in samples if not self._shuffles_tags(sample))]

    def build(self, samples: Sequence[Sample], indices: Sequence[int]) -> list[str]:
        """Builds the captions of samples.

        Args:
            samples: a batch.
            indices: the run's index of each.
        """
        draws = uniform(self.dropout_key, np.array(indices)).tolist()
        return [
            "" if draw < self._dropout_rate(sample) else self._caption(sample, index)
            for sample, draw, index in zip(samples, draws, indices, strict=True)
        ]

    def _dropout_rate(self, sample: Sample) -> float:
        rate = sample.settings.cond_dropout
        return self.config.caption_dropout_rate if rate is None else rate

    def _shuffles_tags(self, sample: Sample) -> bool:
        shuffles = sample.settings.shuffle_tags
        return self.config.shuffle_tags if shuffles is None else shuffles

    def _caption(self, sample: Sample, index: int) -> str:
        if not self._shuffles_tags(sample):
            return sample.caption
        key = stream_key(self.config.seed, "tags", index)
        tag_weights, max_length = dict(sample.image.tag_weights), sample.settings.max_caption_length
        return shuffle_tags(sample.caption, self.config.keep_tags, key, tag_weights, max_length)


def shuffle_tags(
    caption: str,
    keep_tags: int,
    key: int,
    tag_weights: Mapping[str, float] | None = None,
    max_length: int | None = None,
) -> str:
    """Shuffles the tags of a caption: what follows its first comma.

    Tags are drawn without replacement, with chances in proportion to their weights (Efraimidis and Spirakis 2006).

    Args:
        caption: a main prompt, and tags behind it, separated by commas.
        keep_tags: how many tags after the main prompt stay where they are.
        key: names the order.
        tag_weights: of the tags whose weight is not 1.
        max_length: in characters; a tag that would make the caption longer is left out.
    """
    parts = [part.strip() for part in caption.split(",")]
    start, tags = parts[: 1 + keep_tags], [part for part in parts[1 + keep_tags :] if part]
    draws = uniform(key, np.arange(len(tags))).tolist()
    times = [-np.log1p(-u) / max((tag_weights or {}).get(tag, 1.0), 1e-9) for tag, u in zip(tags, draws, strict=True)]
    shuffled = ", ".join(start)
    for _, tag in sorted(zip(times, tags, strict=True)):
        longer = f"{shuffled}, {tag}"
        if max_length is None or len(longer) <= max_length:
            shuffled = longer
    return shuffled
