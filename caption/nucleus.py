"""Nucleus sampling (https://arxiv.org/abs/1904.09751) in which each sequence brings its own luck.

transformers draws for the whole batch from one generator, so that an image's caption hangs on its neighbours. Here
a token is found from one number in [0, 1) a sequence and step, by where it falls in the summed probabilities.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor

_LIKELIEST = 256
"""Tokens that are sorted before all are: nearly always they hold the whole nucleus, and the rest need no sorting."""


def luck_of(seed: int, key: str, sequences: int, steps: int) -> NDArray[np.float64]:
    """What an image's sequences are drawn by: float64 [sequences, steps] in [0, 1), of the seed and its key alone."""
    digest = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little")).random((sequences, steps))


class Nucleus(LogitsProcessor):  # type: ignore[misc]
    """Leaves of each sequence's tokens only the one that is drawn. For one call of generate.

    Args:
        top_p: the nucleus are the likeliest tokens, in order, up to the one with which they reach this probability.
        luck: float64 [n, steps] in [0, 1).
    """

    def __init__(self, top_p: float, luck: Tensor) -> None:
        self.top_p = top_p
        self.luck = luck
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [n, vocabulary], of which all are -inf but one a row."""
        drawn = draw(scores, self.top_p, self.luck[:, self.step])
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0.0)


def draw(scores: Tensor, top_p: float, luck: Tensor) -> Tensor:
    """The token that each row draws, int64 [n], from logits [n, vocabulary] and luck [n]."""
    chances = scores.double().softmax(-1)
    ordered, tokens = chances.topk(min(_LIKELIEST, chances.shape[1]))
    if ordered.sum(-1).min() < top_p:
        ordered, tokens = chances.sort(descending=True)
    reached = ordered.cumsum(-1)
    inside = (reached - ordered < top_p).sum(-1, keepdim=True)
    wanted = luck[:, None] * reached.gather(1, inside - 1)
    place = (reached <= wanted).sum(-1, keepdim=True).minimum(inside - 1)
    return tokens.gather(1, place)[:, 0]
