"""LAION's aesthetic heads: one weight and one bias over a CLIP image embedding.

V1 (LAION-AI/aesthetic-predictor) is a linear layer. V2 (christophschuhmann/improved-aesthetic-predictor, "linearMSE")
is five linear layers with dropout and no activation between them, so it is an affine map too, and is collapsed to one.
Both expect the L2-normalized embedding of OpenAI's CLIP. Their scales differ: V1 scores below 7 are common in LAION's
"aesthetic" subset, V2's good images begin at 5.
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dreamloom.base.errors import UserError
from dreamloom.base.models.clip import Clip
from dreamloom.curate.config import ScoreConfig
from dreamloom.curate.scores.score import DECIMALS, Batch, Compute, Score, ScoreModel

_V2_LAYERS = [0, 2, 4, 6, 7]
"""Positions of V2's linear layers among its dropouts. Its variants with ReLU have others, and are no affine map."""


@dataclass(frozen=True)
class AestheticHead:
    """An affine map from an embedding to a score."""

    weight: NDArray[np.float32]
    """[d]"""
    bias: float

    def score(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Computes the scores [n] of L2-normalized embeddings [n, d]."""
        return np.asarray(embeddings @ self.weight + np.float32(self.bias), dtype=np.float32)


def load_aesthetic_head(path: Path) -> AestheticHead:
    """Reads a V1 or V2 head from a .pth, .pt or .safetensors file.

    Raises:
        UserError: the file is missing, or holds no head that is one affine map.
    """
    tensors = _read(path.expanduser())
    if set(tensors) == {"weight", "bias"}:
        layers = [(tensors["weight"], tensors["bias"])]
    else:
        names = [re.fullmatch(r"layers\.(\d+)\.(?:weight|bias)", name) for name in tensors]
        places = sorted({int(name[1]) for name in names if name})
        if not all(names) or places != _V2_LAYERS or len(tensors) != 2 * len(_V2_LAYERS):
            raise _unusable(path, f"its tensors are {', '.join(sorted(tensors)[:4])}, …")
        layers = [(tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in places]
    return _collapse(layers, path)


def _collapse(layers: list[tuple[NDArray[np.float64], NDArray[np.float64]]], path: Path) -> AestheticHead:
    weight, bias = layers[0]
    try:
        for more_weight, more_bias in layers[1:]:
            weight, bias = more_weight @ weight, more_weight @ bias + more_bias
    except ValueError as error:
        raise _unusable(path, str(error)) from None
    if weight.ndim != 2 or weight.shape[0] != 1 or bias.shape != (1,):
        raise _unusable(path, f"it gives {weight.shape[0] if weight.ndim else 0} numbers, not one score")
    return AestheticHead(weight[0].astype(np.float32), float(bias[0]))


def _read(path: Path) -> dict[str, NDArray[np.float64]]:
    if not path.is_file():
        raise UserError(
            f"The aesthetic head {path} is not there; name a head's .pth or .safetensors file, or leave it out."
        )
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise _unusable(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    if not isinstance(tensors, Mapping) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise _unusable(path, "it holds no dictionary of tensors")
    return {str(name): value.double().numpy() for name, value in tensors.items()}


def _unusable(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not a usable aesthetic head ({why}); name one of LAION's linear heads, V1 or V2 linearMSE."
    )


def _load(config: ScoreConfig, clip: Clip) -> Compute:
    if config.aesthetic_head is None:
        return lambda batch: pa.nulls(len(batch.records), pa.float32())
    head = load_aesthetic_head(config.aesthetic_head)
    if len(head.weight) != clip.width:
        raise UserError(
            f"The aesthetic head {config.aesthetic_head} is for embeddings of {len(head.weight)} numbers, "
            f"{config.model} makes {clip.width}; name the head that belongs to the model."
        )

    def compute(batch: Batch) -> pa.Array:
        return pa.array(head.score(batch.embeddings).round(DECIMALS))

    return compute


def _source(config: Mapping[str, Any]) -> str:
    return Path(config.get("aesthetic_head") or "").name


AESTHETIC = Score("aesthetic", pa.float32(), _load, model=ScoreModel("head", "aesthetic_head"), source=_source)
