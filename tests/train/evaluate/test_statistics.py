"""Intervals that hold all at once, and what is known of a group that is small."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from dreamloom.train.evaluate.measure import percent
from dreamloom.train.evaluate.statistics import Intervals, ratio_change, shrink, simultaneous_intervals

Floats = NDArray[np.float64]


def losses(seed: int, count: int, noise: float = 0.1, skew: bool = False) -> tuple[Floats, Floats]:
    """Losses of two models of which the second is neither better nor worse."""
    rng = np.random.default_rng(seed)
    base = rng.lognormal(-2, 0.5, count)
    residuals = 1 - rng.exponential(1, count) if skew else rng.normal(0, 1, count)
    return base, base * (1 + noise * residuals)


def random_groups(seed: int, groups: int, count: int) -> Floats:
    rng = np.random.default_rng(seed)
    members = np.zeros((groups, count))
    for row in members:
        row[rng.choice(count, rng.integers(5, 20), replace=False)] = 1
    return members


def measured(base: Floats, now: Floats, members: Floats) -> Intervals:
    return simultaneous_intervals(base, now, members, np.zeros(len(base), dtype=np.int64))


@pytest.mark.parametrize("skew", [False, True], ids=["normal", "skewed"])
def test_of_200_splits_of_an_unchanged_model_at_most_5_percent_call_a_concept_forgotten(skew: bool) -> None:
    alarms = 0
    for seed in range(200):
        base, now = losses(seed, 60, skew=skew)
        alarms += bool((measured(base, now, random_groups(seed, 12, 60)).low > 0).any())
    assert alarms <= 10


def test_a_concept_that_is_forgotten_is_found_where_the_mean_shows_nothing() -> None:
    base, now = losses(0, 200)
    members = random_groups(0, 20, 200)
    members[:, :10] = 0
    members[7] = np.arange(200) < 10
    now[:10] *= 1.3
    found = measured(base, now, members)
    assert np.flatnonzero(found.low > 0).tolist() == [7]
    change, error = ratio_change(base, now)
    assert error is not None and abs(change) < 2 * error
    assert found.low[7] < 0.3 < found.high[7]


def test_the_interval_of_one_large_group_is_student_s() -> None:
    base, now = losses(3, 400)
    found = measured(base, now, np.ones((1, 400)))
    low, high = stats.t.interval(0.95, 399, loc=found.change[0], scale=found.error[0])
    assert (found.low[0], found.high[0]) == pytest.approx((low, high), abs=0.2 * found.error[0])
    change, error = ratio_change(base, now)
    assert (found.change[0], found.error[0]) == pytest.approx((change, error), rel=0.02)


def test_with_equal_base_losses_the_error_is_that_of_the_mean() -> None:
    now = np.random.default_rng(0).normal(1.05, 0.2, 30)
    change, error = ratio_change(np.ones(30), now)
    assert (change, error) == pytest.approx((now.mean() - 1, stats.sem(now)))


@given(st.integers(0, 10**6), st.integers(6, 40), st.floats(0.5, 2), st.floats(1e-3, 1e3))
def test_intervals_hold_the_change_and_do_not_depend_on_the_unit(
    seed: int, count: int, factor: float, unit: float
) -> None:
    base, now = losses(seed, count)
    members = np.ones((2, count))
    members[0, 5:] = 0
    found, other = measured(base, factor * now, members), measured(unit * base, unit * factor * now, members)
    assert (found.low <= found.change).all() and (found.change <= found.high).all()
    for name in ("change", "error", "low", "high"):
        assert getattr(other, name) == pytest.approx(getattr(found, name), rel=1e-6, abs=1e-9)


def test_the_same_losses_give_the_same_bits() -> None:
    base, now = losses(1, 50)
    members = random_groups(1, 6, 50)
    first, second = measured(base, now, members), measured(base.copy(), now.copy(), members.copy())
    assert [a.tobytes() for a in vars(first).values()] == [b.tobytes() for b in vars(second).values()]


def test_a_model_against_itself_is_exactly_unchanged() -> None:
    base, _ = losses(0, 20)
    found = measured(base, base, random_groups(0, 3, 20))
    assert not any(values.any() for values in vars(found).values())


def test_kinds_whose_means_differ_do_not_widen_each_other_s_intervals() -> None:
    base, now = losses(0, 100)
    strata = np.arange(100) // 50
    members = np.stack([strata == 0, strata == 1]).astype(float)
    apart = simultaneous_intervals(base, now * (1 + strata), members, strata)
    mixed = measured(base, now * (1 + strata), members)
    assert (apart.error < 0.5 * mixed.error).all()


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=2, max_size=20), st.floats(-1, 1))
def test_shrinking_moves_towards_the_mean_and_never_beyond(groups: list[tuple[float, float]], mean: float) -> None:
    changes, errors = np.array(groups).T
    shrunk = shrink(changes, errors, mean)
    weights = (shrunk - mean) * np.sign(changes - mean)
    assert (weights >= -1e-12).all() and (weights <= abs(changes - mean) + 1e-12).all()


def test_the_less_is_known_the_more_is_shrunk() -> None:
    shrunk = shrink(np.array([0.5, 0.5, -0.5, 0.0]), np.array([0.01, 0.4, 0.01, 0.01]), 0.0)
    assert shrunk[0] == pytest.approx(0.5, abs=0.01) and shrunk[1] < 0.35
    assert (shrink(np.array([0.01, -0.01]), np.array([0.5, 0.5]), 0.02) == 0.02).all(), "nothing but noise"


def test_few_pairs_have_a_change_and_no_error() -> None:
    rng = np.random.default_rng(0)
    base, now = rng.uniform(0.5, 1, 5), rng.uniform(0.5, 1, 5)
    assert ratio_change(base, now)[1] is not None
    assert ratio_change(base[:4], now[:4])[1] is None
    assert percent(0.095, None) == "9.5 % (unsure: 5 held-out images would give an interval)"
