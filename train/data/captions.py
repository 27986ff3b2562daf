"""The captions that samples are shown with: one of several, as written, with shuffled tags, or dropped."""

import re
from collections.abc import Sequence

import numpy as np

from dreamloom.base.errors import UserError
from dreamloom.caption.parts import CaptionParts, join
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.diffusion.rng import stream_key, uniform


class CaptionBuilder:
    """Chooses the caption of each of a run's samples: a function of the seed and the sample's index.

    Args:
        config: the run's; of it count caption dropout, tags and seed.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Derives the keys of the random numbers."""
        self.config = config
        self.dropout_key = stream_key(config.seed, "caption dropout")
        self.choice_key = stream_key(config.seed, "caption choice")

    def fixed_captions(self, samples: Sequence[Sample]) -> list[str]:
        """Lists the captions that are known before the run: the empty one, and those without shuffled tags."""
        images = (sample.image for sample in samples if not self._shuffles_tags(sample))
        fixed = ["", *(caption.caption for image in images for caption in image.captions)]
        others = [with_class_word(caption, self.config) for caption in fixed] if self.config.class_preservation else []
        return [*fixed, *others]

    def are_fixed(self, samples: Sequence[Sample]) -> bool:
        """Tells whether the run shows no other captions than `fixed_captions`."""
        return not any(map(self._shuffles_tags, samples))

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
        captions = sample.image.captions
        caption = captions[int(uniform(self.choice_key, index) * len(captions))] if len(captions) > 1 else captions[0]
        if not self._shuffles_tags(sample):
            return caption.caption
        key = stream_key(self.config.seed, "tags", index)
        return shuffle_tags(caption, self.config.keep_tags, key, sample.settings.max_caption_length)


def with_class_word(caption: str, config: TrainConfig) -> str:
    """Returns a caption with class_word where concept_word stands as a whole word, in any case, as CLIP reads it."""
    concept, other = config.concept_word or "", config.class_word or ""
    return re.sub(rf"(?i)(?<!\w){re.escape(concept)}(?!\w)", lambda _: other, caption)


def shuffle_tags(caption: CaptionParts, keep_tags: int, key: int, max_length: int | None = None) -> str:
    """Shuffles the tags of a caption. Its main prompt and each tag stay whole.

    Tags are drawn without replacement, with chances in proportion to their weights (Efraimidis and Spirakis 2006).

    Args:
        caption: a main prompt and tags.
        keep_tags: how many tags after the main prompt stay where they are.
        key: names the order.
        max_length: in characters; a shuffled tag that would make the caption longer is left out. Nothing else is cut.
    """
    prompt, tags = caption.divide()
    kept, shuffled = [tag for tag, _ in tags[:keep_tags]], tags[keep_tags:]
    draws = uniform(key, np.arange(len(shuffled))).tolist()
    times = [-np.log1p(-u) / max(weight, 1e-9) for (_, weight), u in zip(shuffled, draws, strict=True)]
    for _, (tag, _) in sorted(zip(times, shuffled, strict=True)):
        if max_length is None or len(join(prompt, [*kept, tag])) <= max_length:
            kept.append(tag)
    return join(prompt, kept)


def check_words(dataset: Dataset, config: TrainConfig) -> None:
    """Checks that each new word of a config, and the word of the concept whose class is preserved, is in a caption.

    Raises:
        UserError: one is not, so nothing would be learned, or preserved.
    """
    if not (config.starts or config.class_preservation):
        return
    captions = "\n".join(each.caption for sample in dataset.samples for each in sample.image.captions)
    for word in config.starts:
        if not re.search(rf"(?i)(?<![\w-]){re.escape(word)}(?![\w-])", captions):
            raise UserError(f"embeddings: no caption says {word}, so it would learn nothing; write it into captions.")
    if config.class_preservation and with_class_word(captions, config) == captions:
        raise UserError(
            f"class_preservation: no caption says {config.concept_word}, so nothing would be preserved; name another "
            "concept_word, or write it into captions."
        )
