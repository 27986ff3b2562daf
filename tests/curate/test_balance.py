"""What an epoch draws is exactly what was asked for, in every case."""

from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.curate.balance import (
    apportion,
    count_held_out,
    exact,
    format_multiply,
    select_held_out,
    solve_multiplies,
)
from dreamloom.curate.config import BalanceConfig

counts = st.integers(1, 10**6)
shares = st.floats(0.001, 1000)
ratios = st.floats(0.01, 20)
sources = st.lists(st.tuples(counts, shares), min_size=1, max_size=6)


def drawn(count: int, text: str) -> int:
    """What a trainer that reads multiply.txt draws of a folder."""
    return floor(count * Fraction(text))


def named(pairs: list[tuple[int, float]], prefix: str) -> dict[str, tuple[int, float]]:
    return {f"{prefix}{number}": pair for number, pair in enumerate(pairs)}


@given(sources, sources, ratios)
def test_an_epoch_draws_exactly_the_ratio(
    training: list[tuple[int, float]], truth: list[tuple[int, float]], ratio: float
) -> None:
    mine, theirs = named(training, "t"), named(truth, "g")
    assume(sum(drawn(count, str(multiply)) for count, multiply in training) > 0)
    multiplies = solve_multiplies(mine, theirs, ratio)
    of_training = sum(drawn(count, format_multiply(multiplies[name])) for name, (count, _) in mine.items())
    of_truth = sum(drawn(count, format_multiply(multiplies[name])) for name, (count, _) in theirs.items())
    assert of_training == sum(floor(count * exact(multiply)) for count, multiply in training)
    assert of_truth == floor(exact(ratio) * of_training + Fraction(1, 2))


@given(st.integers(0, 10**7), st.lists(shares, min_size=1, max_size=8))
def test_apportioned_parts_add_up_and_are_within_one_of_their_quota(total: int, given_shares: list[float]) -> None:
    by_name = {str(number): exact(share) for number, share in enumerate(given_shares)}
    parts = apportion(total, by_name)
    assert sum(parts.values()) == total
    for name, share in by_name.items():
        quota = total * share / sum(by_name.values())
        assert floor(quota) <= parts[name] <= ceil(quota)


@given(st.integers(0, 10**5), st.lists(shares, min_size=2, max_size=6), st.floats(1.0, 50.0))
def test_a_larger_share_never_gets_less(total: int, given_shares: list[float], factor: float) -> None:
    before = {str(number): exact(share) for number, share in enumerate(given_shares)}
    after = before | {"0": before["0"] * exact(factor)}
    assert apportion(total, after)["0"] >= apportion(total, before)["0"]


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_the_decimal_gives_the_count_it_was_made_from(count: int, draws: int) -> None:
    assert drawn(count, format_multiply(Fraction(draws, count))) == draws


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


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 10**4), max_size=6), st.floats(0, 0.999), st.integers(0, 99))
def test_some_are_held_out_and_some_are_left(images: dict[str, int], share: float, most: int) -> None:
    counts = count_held_out(images, share, most)
    assert counts.keys() == images.keys()
    assert sum(counts.values()) <= most
    for name, count in counts.items():
        assert 0 <= count < max(1, images[name])
        assert count == 0 or share > 0
    if share and most >= sum(images.values()):
        assert all(counts[name] >= 1 for name, there in images.items() if there >= 2)


@given(st.sets(st.text(min_size=1, max_size=5), min_size=3, max_size=40), st.integers(0, 3), st.data())
def test_an_image_that_comes_changes_one_of_those_held_out_at_most(
    keys: set[str], seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(keys) - 1))
    new = data.draw(st.text(min_size=6, max_size=7))
    before, after = select_held_out(keys, count, seed), select_held_out(keys | {new}, count, seed)
    assert len(before) == len(after) == count
    assert len(before - after) <= 1
    assert before == select_held_out(sorted(keys), count, seed)


def test_another_seed_holds_out_others() -> None:
    keys = [f"k{number}" for number in range(100)]
    assert select_held_out(keys, 20, 0) != select_held_out(keys, 20, 1)
