"""The CLIP embedding of an image, by which near duplicates are confirmed."""

import numpy as np
import pyarrow as pa

from dreamloom.base.models.clip import Clip
from dreamloom.curate.config import ScoreConfig
from dreamloom.curate.scores.score import Batch, Compute, Score


def _load(config: ScoreConfig, clip: Clip) -> Compute:
    def compute(batch: Batch) -> pa.Array:
        values = batch.embeddings.astype(np.float16)
        offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
        return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1), pa.float16()))

    return compute


EMBEDDING = Score("embedding", pa.list_(pa.float16()), _load)
