"""What an epoch draws is exactly what was asked for, in every case."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.curate.balance import (
    exact,
    format_multiply,
    solve_multiplies,
)
from dreamloom.curate.config import BalanceConfig

counts = st.integers(1, 10**6)
shares = st.floats(0.001, 1000)
ratios = st.floats(0.01, 20)
sources = st.lists(st.tuples(counts, shares), min_size=1, max_size=6)


def named(pairs: list[tuple[int, float]], prefix: str) -> dict[str, tuple[int, float]]:
    return {f"{prefix}{number}": pair for number, pair in enumerate(pairs)}


@given(sources, sources, ratios)
def test_ratio_and_shares_are_exact(
    training: list[tuple[int, float]], truth: list[tuple[int, float]], ratio: float
) -> None:
    mine, theirs = named(training, "t"), named(truth, "g")
    assume(sum(count * exact(multiply) for count, multiply in training) >= 1 and all(exact(s) for _, s in truth))
    multiplies = solve_multiplies(mine, theirs, ratio)
    of_training = sum(count * multiplies[name] for name, (count, _) in mine.items())
    shown = {name: count * multiplies[name] for name, (count, _) in theirs.items()}
    assert of_training == sum(count * exact(multiply) for count, multiply in training)
    assert sum(shown.values()) == exact(ratio) * of_training
    per_share = {shown[name] / exact(share) for name, (_, share) in theirs.items()}
    assert len(per_share) == 1


@given(st.integers(1, 10**6), st.fractions(0, 50, max_denominator=10**6), st.integers(1, 1000))
def test_over_a_run_a_source_is_shown_as_often_as_its_multiply_says(
    count: int, multiply: Fraction, epochs: int
) -> None:
    assert abs(floor(epochs * count * Fraction(format_multiply(multiply))) - epochs * count * multiply) <= 1


@pytest.mark.parametrize(
    ("multiply", "text"),
    [(Fraction(25, 1000), "0.025"), (Fraction(1), "1"), (Fraction(5, 2), "2.5"), (Fraction(1, 3), "0.333333333334")],
)
def test_decimals_are_as_short_as_they_can_be(multiply: Fraction, text: str) -> None:
    assert format_multiply(multiply) == text


def test_the_examples_of_everydreams_guide_come_out_exact() -> None:
    """200 of training, as many of a thousand of ground truth; half as many; and 0.1 is a tenth, as its code has not."""
    assert solve_multiplies({"me": (200, 1)}, {"man": (1000, 1)}, 1)["man"] == Fraction(1, 5)
    assert solve_multiplies({"me": (200, 1)}, {"man": (1000, 1)}, 0.5)["man"] == Fraction(1, 10)
    assert solve_multiplies({"me": (10, 0.1)}, {}, 1) == {"me": Fraction(1, 10)}


def test_few_images_of_ground_truth_are_repeated() -> None:
    assert solve_multiplies({"me": (100, 2)}, {"man": (50, 1)}, 1)["man"] == 4


def test_a_source_without_images_leaves_its_share_to_the_others() -> None:
    multiplies = solve_multiplies({"me": (100, 1)}, {"gone": (0, 5), "man": (50, 1)}, 1)
    assert multiplies == {"me": 1, "gone": 0, "man": 2}


@pytest.mark.parametrize("training", [{}, {"me": (0, 1.0)}, {"me": (5, 0.1)}, {"me": (5, 0.0)}])
def test_without_training_images_there_is_nothing_to_balance(training: dict[str, tuple[int, float]]) -> None:
    with pytest.raises(UserError, match="no training image"):
        solve_multiplies(training, {"man": (100, 1)}, 1)


def test_ground_truth_that_lost_all_its_images_is_an_error() -> None:
    with pytest.raises(UserError, match=r"No image of ground truth is left.*man"):
        solve_multiplies({"me": (10, 1)}, {"man": (0, 1)}, 1)


@pytest.mark.parametrize("wrong", [{"ratio": 0}, {"ratio": -1}, {"ratio": "nan"}, {"held_out": 1}, {"rattio": 1}])
def test_a_wrong_config_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        BalanceConfig.model_validate(wrong)
