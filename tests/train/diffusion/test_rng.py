"""Random numbers: the published generator, the same bits on both sides, and the statistics they must have."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.train.diffusion import noise, rng

WORD = st.integers(0, 2**64 - 1)


def test_words_are_splitmix64() -> None:
    """The first outputs for seed 1234567, as published with the reference implementation in C."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert rng.random_bits(1234567, np.arange(4)).tolist() == expected


@given(WORD, st.lists(st.integers(0, 2**62), min_size=1, max_size=20))
def test_torch_makes_the_same_bits_as_numpy(key: int, indices: list[int]) -> None:
    ours = noise.random_bits(key, torch.tensor(indices)).numpy().view(np.uint64)
    assert np.array_equal(ours, rng.random_bits(key, indices))


def test_streams_differ_by_seed_and_purpose() -> None:
    keys = {rng.stream_key(seed, purpose) for seed in range(50) for purpose in ("noise", "order", 1, 11)}
    assert len(keys) == 200
    assert rng.stream_key(1, 1, 1) != rng.stream_key(1, 11)


@given(st.integers(0, 300), WORD)
def test_a_permutation_holds_every_number_once(count: int, key: int) -> None:
    assert sorted(rng.permutation(key, count).tolist()) == list(range(count))


def test_a_permutation_favours_no_place() -> None:
    firsts = np.array([rng.permutation(rng.stream_key(0, turn), 10)[0] for turn in range(5000)])
    assert np.abs(np.bincount(firsts, minlength=10) / 5000 - 0.1).max() < 0.02


def test_uniform_numbers_are_uniform() -> None:
    values = rng.uniform(rng.stream_key(3, "dropout"), np.arange(100_000))
    assert values.min() >= 0 and values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=0.005)
    assert values.var() == pytest.approx(1 / 12, abs=0.002)


def test_noise_is_standard_normal_and_uncorrelated() -> None:
    values = noise.normal(rng.stream_key(0, "noise"), torch.arange(200), (4, 16, 16)).flatten(1)
    assert values.mean().item() == pytest.approx(0, abs=0.01)
    assert values.var().item() == pytest.approx(1, abs=0.01)
    assert (values**4).mean().item() == pytest.approx(3, abs=0.1)
    assert torch.corrcoef(values).fill_diagonal_(0).abs().max() < 0.16  # 5 deviations of 1/√1024
    assert torch.corrcoef(values[:, :64].T).fill_diagonal_(0).abs().max() < 0.4


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=9), WORD)
def test_a_samples_noise_does_not_depend_on_its_neighbours(indices: list[int], key: int) -> None:
    together = noise.normal(key, torch.tensor(indices), (3, 5, 7))
    alone = torch.cat([noise.normal(key, torch.tensor([index]), (3, 5, 7)) for index in indices])
    assert torch.equal(together, alone)


@given(WORD, st.integers(0, 2**40), st.sampled_from([10, 50, 1000]))
def test_consecutive_samples_spread_over_the_timesteps(key: int, start: int, count: int) -> None:
    steps = noise.sample_timesteps(key, torch.arange(start, start + 4 * count), count)
    assert steps.min() >= 0 and steps.max() < count
    share = torch.bincount(steps * 10 // count, minlength=10) / len(steps)
    assert (share - 0.1).abs().max() < 0.05
