"""Sampling: exact counts, every image once before any twice, the same whoever asks and when."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise
from math import floor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dreamloom.train.data.sampler import BROKEN, Division, FolderSampler, sample_epoch

multiplies = st.fractions(0, 4, max_denominator=50)
counts = st.integers(1, 60)


@given(counts, multiplies, st.integers(0, 5), st.integers(0, 40))
def test_an_epoch_samples_an_exact_number(count: int, multiply: Fraction, seed: int, epoch: int) -> None:
    sampled = FolderSampler("a", 0, np.arange(count), multiply).sample_epoch(seed, epoch)
    assert len(sampled) == floor((epoch + 1) * count * multiply) - floor(epoch * count * multiply)


@given(counts, multiplies, st.integers(0, 5), st.integers(1, 30))
def test_every_image_is_seen_once_before_any_is_seen_twice(
    count: int, multiply: Fraction, seed: int, epochs: int
) -> None:
    sampler = FolderSampler("a", 0, np.arange(count), multiply)
    seen = Counter(np.concatenate([sampler.sample_epoch(seed, epoch) for epoch in range(epochs)]).tolist())
    times = [seen[sample_id] for sample_id in sampler.sample_ids]
    assert sum(times) == floor(epochs * count * multiply)
    assert max(times) - min(times) <= 1


@pytest.mark.parametrize(
    ("count", "multiply", "per_epoch"),
    [(200, "1", 200), (50, "4", 200), (100, "2.5", 250), (1000, "0.05", 50), (1000, "0.1", 100), (1000, "0.025", 25)],
)
def test_everydreams_own_counts(count: int, multiply: str, per_epoch: int) -> None:
    sampler = FolderSampler("a", 0, np.arange(count), Fraction(multiply))
    for epoch in range(4):
        assert len(sampler.sample_epoch(0, epoch)) == per_epoch


def test_where_everydream_is_biased_we_are_not() -> None:
    """mul-bias: 10 images at 0.5; there the first came in 63 % of epochs and the last in 26 %."""
    sampler = FolderSampler("a", 0, np.arange(10), Fraction(1, 2))
    seen = Counter(np.concatenate([sampler.sample_epoch(0, epoch) for epoch in range(400)]).tolist())
    assert set(seen.values()) == {200}
    first_halves = Counter(
        sample_id for epoch in range(0, 400, 2) for sample_id in sampler.sample_epoch(0, epoch).tolist()
    )
    assert max(first_halves.values()) < 135 and min(first_halves.values()) > 65


def test_one_folders_remainder_is_not_another_folders() -> None:
    """mul-08: 100 images at 1.2 and 100 at 0.8; there the first folder drew 117 to 122."""
    samplers = [
        FolderSampler("a", 0, np.arange(100), Fraction("1.2")),
        FolderSampler("b", 0, np.arange(100, 200), Fraction("0.8")),
    ]
    for epoch in range(3):
        sampled = sample_epoch(samplers, 0, epoch)
        assert (sampled < 100).sum() == 120 and (sampled >= 100).sum() == 80


def test_epochs_and_seeds_give_other_orders_and_any_epoch_can_be_asked_first() -> None:
    samplers = [FolderSampler("a", 0, np.arange(40), Fraction(1))]
    orders = {tuple(sample_epoch(samplers, seed, epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert np.array_equal(
        sample_epoch(samplers, 0, 7), sample_epoch([FolderSampler("a", 0, np.arange(40), Fraction(1))], 0, 7)
    )


@given(st.lists(st.fractions(Fraction(1, 1000), 40), min_size=1, max_size=40), st.integers(1, 50))
@example([Fraction(51859399, 10371880)], 1)  # less than 5 by 1e-7
def test_the_samplers_of_a_folder_round_together(shares: list[Fraction], epochs: int) -> None:
    division = Division(shares)
    rows = [division.after(epoch) for epoch in range(epochs + 1)]
    for epoch, row in enumerate(rows):
        assert row.sum() == floor(epoch * sum(shares))
        assert all(abs(int(shown) - epoch * share) <= 1 for shown, share in zip(row, shares, strict=True))
    assert all((after >= before).all() for before, after in pairwise(rows))


@given(st.sets(st.integers(0, 29), max_size=29), st.integers(0, 5), st.integers(0, 90))
def test_images_that_cannot_be_decoded_do_not_move_the_others(broken: set[int], seed: int, stop: int) -> None:
    all_ids = np.arange(30)
    with_broken = np.where(np.isin(all_ids, list(broken)), BROKEN, all_ids)
    sampler = FolderSampler("a", 0, all_ids[with_broken != BROKEN], Fraction(1), with_broken=with_broken)
    whole = FolderSampler("a", 0, all_ids, Fraction(1)).sample_span(seed, 0, 120).tolist()
    row = [place for place in whole if place not in broken]
    assert sampler.sample_span(seed, 0, min(stop, len(row))).tolist() == row[:stop]
    assert sorted(sampler.first(seed, stop)) == sorted(set(row[:stop]))
