"""Parts that add up, near their quotas, within their bounds."""

from fractions import Fraction
from math import ceil, floor

from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.apportion import apportion

shares = st.lists(st.fractions(Fraction(1, 1000), 1000, max_denominator=1000), min_size=1, max_size=8)


@given(st.integers(0, 10**7), shares)
def test_parts_add_up_and_are_within_one_of_their_quota(total: int, given_shares: list[Fraction]) -> None:
    parts = apportion(total, given_shares)
    assert sum(parts) == total
    for part, share in zip(parts, given_shares, strict=True):
        quota = total * share / sum(given_shares)
        assert floor(quota) <= part <= ceil(quota)


@given(st.integers(0, 10**5), shares, st.fractions(1, 50, max_denominator=100))
def test_a_larger_share_never_gets_less(total: int, before: list[Fraction], factor: Fraction) -> None:
    assert apportion(total, [before[0] * factor, *before[1:]])[0] >= apportion(total, before)[0]


@given(
    st.lists(st.tuples(st.fractions(0, 50, max_denominator=40), st.integers(0, 9), st.integers(0, 9)), min_size=1),
    st.floats(0, 1),
)
def test_apportioning_adds_up_within_its_bounds(rows: list[tuple[Fraction, int, int]], place: float) -> None:
    shares = [share for share, _, _ in rows]
    if not sum(shares):
        return
    at_least = [low for _, low, _ in rows]
    at_most = [low + more for _, low, more in rows]
    total = round(sum(at_least) + place * (sum(at_most) - sum(at_least)))
    counts = apportion(total, shares, at_least, at_most)
    assert sum(counts) == total
    assert all(low <= count <= high for low, count, high in zip(at_least, counts, at_most, strict=True))


def test_of_equal_remainders_the_first_get_what_is_left() -> None:
    assert apportion(2, [Fraction(1)] * 3) == [1, 1, 0]
    assert apportion(7, [Fraction(1)] * 4, at_least=[0, 0, 0, 2]) == [2, 2, 1, 2]
