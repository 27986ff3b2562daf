"""Finds the candidates for an image's caption: a model's, the alt text, or given texts; CLIP ranks them.

Several sentences of a model, of which CLIP takes the likeliest, are LAION-COCO's recipe
(https://laion.ai/blog/laion-coco/). Alt text is one more candidate, so that both are measured on the same scale.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from dreamloom.base.models.clip import Clip, load_clip
from dreamloom.caption.captioners import load_captioner
from dreamloom.caption.captioners.captioner import Captioner
from dreamloom.caption.config import CaptionConfig
from dreamloom.scrape.collection import CaptionKind
from dreamloom.scrape.collection.schema import Row

if TYPE_CHECKING:
    from torch import Tensor

DOUBTFUL = "doubtful"
"""The summary's name for captions below `doubtful_below`."""

_SCORE_DECIMALS, _COSINE_DECIMALS = 3, 4
"""Decimals that do not depend on how many images the model saw at once."""


@dataclass(frozen=True)
class Candidate:
    """A text that may become an image's caption."""

    caption: str
    kind: CaptionKind
    score: float | None = None
    """The model's mean log-probability per token."""
    similarity: float | None = None
    """CLIP cosine of the image and the text; None where CLIP did not rank it."""

    def to_row(self) -> dict[str, Any]:
        """Returns it as the captions table has it."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Row) -> "Candidate":
        """Inverts `to_row`."""
        score = _round(row["score"], _SCORE_DECIMALS)
        similarity = _round(row["similarity"], _COSINE_DECIMALS)
        return cls(row["caption"], CaptionKind(row["kind"]), score, similarity)


@dataclass(frozen=True)
class PreparedImage:
    """An image as the models take it."""

    record: Row
    """Its key, text and text_kind."""
    for_captioner: "Tensor | None" = None
    for_clip: "Tensor | None" = None
    generated: Sequence[Candidate] | None = None
    """What the captioning model generated earlier; it is not asked again."""


class CandidateFinder(Protocol):
    """Finds the candidates of images."""

    @property
    def side(self) -> int:
        """Pixels of the largest input of its models, per side."""

    def prepare(self, record: Row, image: Image.Image, generated: Sequence[Candidate] | None) -> PreparedImage:
        """Turns an RGB image into what the models take; called in decoding threads.

        Args:
            record: The image's record.
            image: Decoded.
            generated: What the captioning model generated for it earlier.
        """

    def find(self, images: Sequence[PreparedImage]) -> list[list[Candidate]]:
        """Finds at least one candidate for each image, as one batch."""


def candidate_finder(config: CaptionConfig, source: str, all_generated: bool) -> CandidateFinder:
    """Loads what finds the candidates of a source's images.

    Args:
        config: The caption stage's.
        source: The source's name.
        all_generated: The captioning model has described each of them earlier, so it is not loaded.

    Raises:
        UserError: a model can't be loaded.
    """
    if source in config.templates:
        return TemplateFinder(load_clip(config.clip, config.device), config.templates[source])
    clip = load_clip(config.clip, config.device) if config.ranks else None
    return ModelFinder(None if all_generated else load_captioner(config), clip, config.keep_alt_text_if_better)


@dataclass(frozen=True)
class ModelFinder:
    """Has a captioning model generate captions; a CLIP, if there is one, ranks them."""

    captioner: Captioner | None
    clip: Clip | None
    with_alt_text: bool
    """Whether the alt text is a candidate, too."""

    @property
    def side(self) -> int:
        """Pixels of the largest input of its models, per side."""
        return max(model.side for model in (self.captioner, self.clip) if model is not None)

    def prepare(self, record: Row, image: Image.Image, generated: Sequence[Candidate] | None) -> PreparedImage:
        """Turns an RGB image into what the models take."""
        for_captioner = None
        if self.captioner is not None and generated is None:
            for_captioner = self.captioner.prepare(image)
        return PreparedImage(record, for_captioner, self.clip.prepare(image) if self.clip else None, generated)

    def find(self, images: Sequence[PreparedImage]) -> list[list[Candidate]]:
        """Finds the candidates of each image, as one batch."""
        new = iter(self._generate([image for image in images if image.generated is None]))
        candidates = [list(next(new) if image.generated is None else image.generated) for image in images]
        if self.with_alt_text:
            pairs = zip(candidates, images, strict=True)
            candidates = [[*generated, *_alt_text(image.record)] for generated, image in pairs]
        return candidates if self.clip is None else _rank(self.clip, images, candidates)

    def _generate(self, images: Sequence[PreparedImage]) -> list[list[Candidate]]:
        if self.captioner is None or not images:
            return []
        inputs = [image.for_captioner for image in images if image.for_captioner is not None]
        return [
            [Candidate(caption.text, CaptionKind.MODEL, round(caption.score, _SCORE_DECIMALS)) for caption in captions]
            for captions in self.captioner.generate(inputs, [content_name(image.record) for image in images])
        ]


@dataclass(frozen=True)
class TemplateFinder:
    """Classifies zero-shot: the texts are given, and CLIP ranks them for each image."""

    clip: Clip
    texts: Sequence[str]

    @property
    def side(self) -> int:
        """Pixels of CLIP's input, per side."""
        return self.clip.side

    def prepare(self, record: Row, image: Image.Image, generated: Sequence[Candidate] | None) -> PreparedImage:
        """Turns an RGB image into CLIP's input."""
        return PreparedImage(record, for_clip=self.clip.prepare(image))

    def find(self, images: Sequence[PreparedImage]) -> list[list[Candidate]]:
        """Returns the texts for each image, ranked, as one batch."""
        candidates = [Candidate(text, CaptionKind.TEMPLATE) for text in self.texts]
        return _rank(self.clip, images, [candidates] * len(images))


def select_best(candidates: Sequence[Candidate]) -> tuple[Candidate, float | None]:
    """Returns the candidate of the highest similarity, and its lead (None: it is the only one, or CLIP did not rank).

    Of equals the first; without similarities, the first. An empty text is taken only if there is nothing else.
    """
    order = sorted(candidates, key=lambda candidate: (not candidate.caption.strip(), -(candidate.similarity or 0.0)))
    best, others = order[0], [candidate.similarity for candidate in order[1:] if candidate.similarity is not None]
    if best.similarity is None or not others:
        return best, None
    return best, round(best.similarity - max(others), _COSINE_DECIMALS)


def is_doubtful(best: Candidate, config: CaptionConfig) -> bool | None:
    """Tells whether a caption is less like its image than `doubtful_below`; None: there is nothing to compare."""
    cosine, lowest = best.similarity, config.doubtful_below
    return None if cosine is None or lowest is None else cosine < lowest


def content_name(record: Row) -> str:
    """Returns what words that are sampled depend on: the image's content, or in records of old releases its key."""
    return str(record.get("image_sha256") or record["key"])


def _round(value: float | None, decimals: int) -> float | None:
    """Rounds a value of the table, where it is a float32."""
    return None if value is None else round(value, decimals)


def _alt_text(record: Row) -> list[Candidate]:
    text = (record["text"] or "").strip()
    return [Candidate(text, CaptionKind.ALT)] if text and record["text_kind"] == CaptionKind.ALT else []


def _rank(
    clip: Clip, images: Sequence[PreparedImage], candidates: Sequence[Sequence[Candidate]]
) -> list[list[Candidate]]:
    """Adds the similarities to the candidates of each image."""
    image_embeddings = clip.embed_images([image.for_clip for image in images if image.for_clip is not None])
    texts = dict.fromkeys(candidate.caption for of_image in candidates for candidate in of_image)
    column = {text: number for number, text in enumerate(texts)}
    cosines = np.asarray(image_embeddings @ clip.embed_texts(list(texts)).T)
    return [
        [
            replace(candidate, similarity=round(float(cosines[row, column[candidate.caption]]), _COSINE_DECIMALS))
            for candidate in of_image
        ]
        for row, of_image in enumerate(candidates)
    ]
