"""Threads work ahead, but only so far, and their results come in order."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.threads import map_ordered


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4), st.integers(0, 9))
def test_results_come_in_order(items: list[int], num_threads: int, ahead: int) -> None:
    assert list(map_ordered(lambda item: item + 1, items, num_threads, ahead)) == [item + 1 for item in items]


def test_no_more_is_begun_than_may_lie_ahead() -> None:
    taken = list[int]()

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_ordered(lambda item: item, items(), num_threads=3, ahead=5)
    assert taken == []
    assert next(results) == 0
    assert len(taken) == 6


def test_closing_cancels_what_has_not_begun() -> None:
    begun = list[int]()
    guard = threading.Lock()

    def work(item: int) -> int:
        with guard:
            begun.append(item)
        return item

    results = map_ordered(work, range(1000), num_threads=2, ahead=5)
    assert next(results) == 0
    results.close()
    assert max(begun) <= 5


def test_a_failure_comes_in_its_place_and_ends_the_rest() -> None:
    done = list[int]()
    never = threading.Event()

    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        if item > 2:
            never.wait(0.2)  # 50 of them would take longer than anyone needs to hear of the failure
        done.append(item)
        return item

    results = map_ordered(work, range(100), num_threads=1, ahead=50)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert len(done) < 50
