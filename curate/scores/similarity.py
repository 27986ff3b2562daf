"""The CLIP cosine of an image and the text it came with; null for images without text."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dreamloom.base.models.clip import Clip
from dreamloom.base.models.clip_config import clip_name
from dreamloom.curate.config import ScoreConfig
from dreamloom.curate.scores.score import DECIMALS, Batch, Compute, Score


def _load(config: ScoreConfig, clip: Clip) -> Compute:
    def compute(batch: Batch) -> pa.Array:
        texts = {row: record["text"] for row, record in enumerate(batch.records) if (record["text"] or "").strip()}
        similarity: list[float | None] = [None] * len(batch.records)
        if texts:
            rows = list(texts)
            cosines = (batch.embeddings[rows] * clip.embed_texts(list(texts.values()))).sum(axis=1)
            for row, cosine in zip(rows, cosines.tolist(), strict=True):
                similarity[row] = round(cosine, DECIMALS)
        return pa.array(similarity, pa.float32())

    return compute


def _source(config: Mapping[str, Any]) -> str:
    return clip_name(config["model"], config.get("pretrained", ""))


SIMILARITY = Score("similarity", pa.float32(), _load, source=_source)
