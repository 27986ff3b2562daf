"""A token is drawn with the probability that transformers' nucleus gives it, by luck that is the sequence's own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TopPLogitsWarper

from dreamloom.caption.captioners.nucleus import NucleusSampler, random_numbers, sample


def chances_of(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """By transformers."""
    kept: torch.Tensor = TopPLogitsWarper(top_p)(torch.empty(0), scores)
    return kept.double().softmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("words", [7, 2000])  # fewer and more than are sorted at first
def test_tokens_come_as_often_as_transformers_would_have_them(top_p: float, words: int) -> None:
    scores = torch.randn((1, words), generator=torch.Generator().manual_seed(words)) * 2
    luck = torch.linspace(0, 1, 20001, dtype=torch.float64)[:-1]
    drawn = sample(scores.expand(len(luck), -1), top_p, luck)
    counted = torch.bincount(drawn, minlength=words) / len(luck)
    wanted = chances_of(scores, top_p)[0]
    torch.testing.assert_close(counted.double(), wanted, atol=2 / len(luck), rtol=0)


@given(st.integers(0, 10_000), st.floats(0.01, 1.0), st.floats(0, 1, exclude_max=True))
def test_a_forbidden_token_is_never_drawn(seed: int, top_p: float, luck: float) -> None:
    scores = torch.randn((1, 40), generator=torch.Generator().manual_seed(seed))
    scores[0, ::2] = -torch.inf
    (token,) = sample(scores, top_p, torch.tensor([luck], dtype=torch.float64)).tolist()
    assert token % 2 == 1
    assert chances_of(scores, min(1.0, top_p + 1e-6))[0, token] > 0


def test_each_step_has_its_luck() -> None:
    scores = torch.zeros((2, 4))
    nucleus = NucleusSampler(1.0, torch.tensor([[0.1, 0.9], [0.6, 0.3]], dtype=torch.float64))
    steps = [nucleus(torch.empty(0), scores).argmax(-1).tolist() for _ in range(2)]
    order = scores[0].softmax(-1).topk(4).indices.tolist()
    assert steps == [[order[0], order[2]], [order[3], order[1]]]


def test_luck_hangs_on_the_seed_and_the_key() -> None:
    assert np.array_equal(random_numbers(0, "a", 3, 5), random_numbers(0, "a", 3, 5))
    assert np.array_equal(
        random_numbers(0, "a", 2, 5), random_numbers(0, "a", 3, 5)[:2]
    )  # more candidates change none of the first
    assert not np.array_equal(random_numbers(0, "a", 3, 5), random_numbers(1, "a", 3, 5))
    assert not np.array_equal(random_numbers(0, "a", 3, 5), random_numbers(0, "b", 3, 5))
