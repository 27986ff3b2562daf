"""Candidates for an image's caption: what a model writes, the alt text, the texts of a class; CLIP ranks them.

Several sentences of a model, of which CLIP takes the likeliest, are LAION-COCO's recipe
(https://laion.ai/blog/laion-coco/). Alt text is one more candidate, so both are measured on the same scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from dreamloom.base.clip import Clip, load_clip
from dreamloom.caption.blip import Blip, load
from dreamloom.caption.config import CaptionConfig
from dreamloom.scrape.collection import CaptionKind

if TYPE_CHECKING:
    from torch import Tensor

Row = Mapping[str, Any]

_SCORE, _COSINE = 3, 4
"""Decimals that do not hang on how many images the model saw at once."""


@dataclass(frozen=True)
class Candidate:
    """A text that may become an image's caption."""

    caption: str
    kind: CaptionKind
    score: float | None = None
    """The model's mean log-probability a token."""
    similarity: float | None = None
    """CLIP cosine of the image and it; None where CLIP was not asked."""

    def to_row(self) -> dict[str, Any]:
        """As the captions table has it."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Row) -> "Candidate":
        """The inverse of `to_row`."""
        score, similarity = row["score"], row["similarity"]
        return cls(row["caption"], CaptionKind(row["kind"]), _rounded(score, _SCORE), _rounded(similarity, _COSINE))


@dataclass(frozen=True)
class Seen:
    """An image as the models take it."""

    row: Row
    """Its record: key, text, text_kind."""
    for_blip: "Tensor | None" = None
    for_clip: "Tensor | None" = None
    said: Sequence[Candidate] | None = None
    """What the captioning model said before, so that it is not asked."""


class Writer(Protocol):
    """Finds the candidates of images."""

    @property
    def side(self) -> int:
        """Pixels that the largest of its models looks at, a side."""

    def look(self, row: Row, picture: Image.Image, said: Sequence[Candidate] | None) -> Seen:
        """An RGB image as the models take it; threads call this.

        Args:
            said: what the captioning model said of it before.
        """

    def write(self, seen: Sequence[Seen]) -> list[list[Candidate]]:
        """Of each image at least one candidate, in one batch."""


def writer_of(config: CaptionConfig, source: str, all_said: bool) -> Writer:
    """Who finds the candidates of a source's images.

    Args:
        all_said: the captioning model has described each of them before.

    Raises:
        UserError: a model can't be loaded.
    """
    if source in config.templates:
        return ClassWriter(load_clip(config.clip, config.device), config.templates[source])
    clip = load_clip(config.clip, config.device) if config.ranks else None
    return ModelWriter(None if all_said else load(config), clip, config.keep_alt_text_if_better)


@dataclass(frozen=True)
class ModelWriter:
    """BLIP writes; where there is a CLIP, it says how well each sentence fits."""

    blip: Blip | None
    clip: Clip | None
    with_alt: bool
    """Whether the alt text is a candidate, too."""

    @property
    def side(self) -> int:
        return max(model.side for model in (self.blip, self.clip) if model is not None)

    def look(self, row: Row, picture: Image.Image, said: Sequence[Candidate] | None) -> Seen:
        for_blip = self.blip.prepare(picture) if self.blip is not None and said is None else None
        return Seen(row, for_blip, self.clip.prepare(picture) if self.clip else None, said)

    def write(self, seen: Sequence[Seen]) -> list[list[Candidate]]:
        new = iter(self._new([one for one in seen if one.said is None]))
        found = [list(next(new) if one.said is None else one.said) for one in seen]
        if self.with_alt:
            found = [[*candidates, *_alt(one.row)] for candidates, one in zip(found, seen, strict=True)]
        return found if self.clip is None else _ranked(self.clip, seen, found)

    def _new(self, seen: Sequence[Seen]) -> list[list[Candidate]]:
        if self.blip is None or not seen:
            return []
        pictures = [one.for_blip for one in seen if one.for_blip is not None]
        return [
            [Candidate(one.text, CaptionKind.MODEL, round(one.score, _SCORE)) for one in written]
            for written in self.blip.write(pictures, [one.row["key"] for one in seen])
        ]


@dataclass(frozen=True)
class ClassWriter:
    """Zero-shot: the texts are given, and CLIP says how well each fits."""

    clip: Clip
    texts: Sequence[str]

    @property
    def side(self) -> int:
        return self.clip.side

    def look(self, row: Row, picture: Image.Image, _: Sequence[Candidate] | None) -> Seen:
        return Seen(row, for_clip=self.clip.prepare(picture))

    def write(self, seen: Sequence[Seen]) -> list[list[Candidate]]:
        return _ranked(self.clip, seen, [[Candidate(text, CaptionKind.TEMPLATE) for text in self.texts] for _ in seen])


def best(candidates: Sequence[Candidate]) -> tuple[Candidate, float | None]:
    """The candidate of the highest similarity, and by how much it leads (None: it is alone, or CLIP was not asked).

    The first of equals; without similarities, the first. An empty text is taken only where there is nothing else.
    """
    order = sorted(candidates, key=lambda one: (not one.caption.strip(), -(one.similarity or 0.0)))
    first, others = order[0], [one.similarity for one in order[1:] if one.similarity is not None]
    if first.similarity is None or not others:
        return first, None
    return first, round(first.similarity - max(others), _COSINE)


def _rounded(value: float | None, decimals: int) -> float | None:
    """Out of the table, where it is a float32."""
    return None if value is None else round(value, decimals)


def _alt(row: Row) -> list[Candidate]:
    text = (row["text"] or "").strip()
    return [Candidate(text, CaptionKind.ALT)] if text and row["text_kind"] == CaptionKind.ALT else []


def _ranked(clip: Clip, seen: Sequence[Seen], found: Sequence[Sequence[Candidate]]) -> list[list[Candidate]]:
    """The same candidates with their similarities."""
    pictures = clip.embed_images([one.for_clip for one in seen if one.for_clip is not None])
    place = {text: number for number, text in enumerate(dict.fromkeys(c.caption for each in found for c in each))}
    texts = clip.embed_texts(list(place))
    cosines = np.asarray(pictures @ texts.T)
    return [
        [replace(one, similarity=round(float(cosines[row, place[one.caption]]), _COSINE)) for one in candidates]
        for row, candidates in enumerate(found)
    ]
