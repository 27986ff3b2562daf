"""Work a few items ahead: in order, bounded, and broken off cleanly."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.ahead import ahead


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4), st.integers(1, 8))
def test_results_come_in_order(items: list[int], workers: int, window: int) -> None:
    assert list(ahead(lambda item: item * 2, items, workers, window)) == [item * 2 for item in items]


def test_no_more_than_the_window_is_begun_before_it_is_wanted() -> None:
    begun: list[int] = []
    guard = threading.Lock()

    def work(item: int) -> int:
        with guard:
            begun.append(item)
        return item

    results = ahead(work, range(1000), workers=2, window=5)
    assert next(results) == 0
    results.close()
    assert max(begun) <= 5


def test_an_error_reaches_whoever_asked() -> None:
    def fail(item: int) -> int:
        raise ZeroDivisionError(item)

    with pytest.raises(ZeroDivisionError):
        list(ahead(fail, [1], workers=1, window=2))
