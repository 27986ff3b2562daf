"""Threads work ahead, but only so far, and their results come in order."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.threads import in_order


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4), st.integers(0, 9))
def test_results_come_in_order(items: list[int], threads: int, ahead: int) -> None:
    assert list(in_order(lambda item: item + 1, items, threads, ahead)) == [item + 1 for item in items]


def test_no_more_is_begun_than_may_lie_ahead() -> None:
    taken = list[int]()

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda item: item, items(), threads=3, ahead=5)
    assert next(results) == 0
    assert len(taken) == 6


def test_a_failure_comes_in_its_place_and_ends_the_rest() -> None:
    done = list[int]()
    go = threading.Event()

    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        if item > 2:
            go.wait(10)
        done.append(item)
        return item

    results = in_order(work, range(100), threads=1, ahead=50)
    assert [next(results), next(results)] == [0, 1]
    threading.Timer(0.05, go.set).start()
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert len(done) <= 4
