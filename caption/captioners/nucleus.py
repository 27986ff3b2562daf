"""Nucleus sampling (https://arxiv.org/abs/1904.09751) in which each sequence has random numbers of its own.

transformers samples the whole batch from one generator, so that an image's caption depends on its neighbours. Here a
token is determined by one number in [0, 1) per sequence and step: by where it falls in the cumulated probabilities.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor

_TOP_K = 256
"""Tokens that are sorted first: nearly always they hold the whole nucleus, and the others need no sorting."""


def random_numbers(seed: int, key: str, sequences: int, steps: int) -> NDArray[np.float64]:
    """Returns the numbers that sample an image's sequences: float64 [sequences, steps] in [0, 1), from seed and key."""
    digest = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little")).random((sequences, steps))


class NucleusSampler(LogitsProcessor):  # type: ignore[misc]
    """Leaves only the sampled token of each sequence. For one call of generate.

    Args:
        top_p: The nucleus are the likeliest tokens, in order, up to the one with which they reach this probability.
        numbers: float64 [n, steps] in [0, 1).
    """

    def __init__(self, top_p: float, numbers: Tensor) -> None:
        self.top_p = top_p
        self.numbers = numbers
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Returns logits [n, vocabulary], all -inf but one per row."""
        tokens = sample(scores, self.top_p, self.numbers[:, self.step])
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


def sample(scores: Tensor, top_p: float, numbers: Tensor) -> Tensor:
    """Returns the token sampled in each row, int64 [n], from logits [n, vocabulary] and numbers [n] in [0, 1)."""
    probabilities = scores.double().softmax(-1)
    ordered, tokens = probabilities.topk(min(_TOP_K, probabilities.shape[1]))
    if ordered.sum(-1).min() < top_p:
        ordered, tokens = probabilities.sort(descending=True)
    cumulated = ordered.cumsum(-1)
    nucleus_size = (cumulated - ordered < top_p).sum(-1, keepdim=True)
    target = numbers[:, None] * cumulated.gather(1, nucleus_size - 1)
    index = (cumulated <= target).sum(-1, keepdim=True).minimum(nucleus_size - 1)
    return tokens.gather(1, index)[:, 0]
