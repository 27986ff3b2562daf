"""The circuit breaker: a host that stops answering is paused longer and longer, and then given up."""

import pytest

from dreamloom.scrape.web.circuit_breaker import CircuitBreaker


def failures(breaker: CircuitBreaker, count: int, began: float = 10.0) -> list[float | None]:
    return [breaker.record_failure("a", began) for _ in range(count)]


def test_it_pauses_for_2_4_and_8_seconds_and_then_gives_up() -> None:
    breaker = CircuitBreaker(5)
    assert failures(breaker, 4) == [0.0] * 4
    pauses = failures(breaker, 3)
    for pause, seconds in zip(pauses, (2, 4, 8), strict=True):
        assert pause is not None and 0.75 * seconds <= pause <= 1.25 * seconds
    assert failures(breaker, 1) == [None]
    assert breaker.record_failure("b", 10.0) == 0.0, "another host is another matter"


def test_an_answer_closes_it_and_the_pauses_begin_anew() -> None:
    breaker = CircuitBreaker(2)
    assert failures(breaker, 1) == [0.0]
    breaker.record_response("a", 5.0)
    assert failures(breaker, 1) == [0.0]
    assert all(failures(breaker, 3))
    breaker.record_response("a", 6.0)
    assert failures(breaker, 1) == [0.0]
    (pause,) = failures(breaker, 1)
    assert pause == pytest.approx(2, rel=0.25)


def test_what_began_before_the_last_answer_does_not_count() -> None:
    breaker = CircuitBreaker(1)
    breaker.record_response("a", 10.0)
    assert failures(breaker, 5, began=9.0) == [0.0] * 5
    assert all(failures(breaker, 1, began=10.0))


def test_without_a_limit_it_never_opens() -> None:
    assert failures(CircuitBreaker(None), 50) == [0.0] * 50
