"""Kindness to hosts that are busy, down or slow: each is left alone for itself, and the others go on."""

import socket
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.scrape.collection import Collection
from dreamloom.scrape.web.circuit_breaker import MAX_OPENINGS, CircuitBreaker

OTHER = "localhost"


def statuses(rows: list[dict[str, Any]]) -> list[str]:
    return [row["status"] for row in rows]


def test_a_host_that_is_down_is_given_up_and_the_others_are_not(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamloom.scrape.web.circuit_breaker.FIRST_PAUSE_S", 0.01)
    down = [site.put(f"/down/{n}", status=500) for n in range(30)]
    up = [site.put(f"/up/{n}", site.image(n)).replace("127.0.0.1", OTHER) for n in range(9)]
    outcomes = statuses(site.scraped(collection, [*down, *up], max_host_failures=3))
    assert outcomes[30:] == ["ok"] * 9
    asked = sum(site.hits[f"/down/{n}"] for n in range(30))
    assert 3 + MAX_OPENINGS <= asked <= 3 + MAX_OPENINGS + site.config.concurrency_per_host
    assert sorted(outcomes[:30]) == ["host_down"] * (30 - asked) + ["http_5xx"] * asked
    again = site.scraped(collection, down, max_host_failures=None)
    assert statuses(again) == ["http_5xx"] * 30


def test_a_host_that_comes_back_is_asked_again(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamloom.scrape.web.circuit_breaker.FIRST_PAUSE_S", 0.01)

    async def answer(request: web.Request) -> web.StreamResponse:
        bad = site.hits.total() <= 5
        return web.Response(status=503) if bad else web.Response(body=site.image(int(request.path[1:])))

    outcomes = statuses(
        site.scraped(collection, [site.handle(f"/{n}", answer) for n in range(20)], max_host_failures=3)
    )
    assert outcomes.count("http_5xx") == 5
    assert outcomes.count("ok") == 15


def test_a_host_that_wants_to_be_left_alone_for_long_is(site: Any, collection: Collection) -> None:
    urls = [site.put(f"/{n}", status=429, headers={"Retry-After": "86400"}) for n in range(20)]
    urls.append(site.put("/else", site.image(1)).replace("127.0.0.1", OTHER))
    rows = site.scraped(collection, urls, concurrency_per_host=2)
    assert statuses(rows) == ["http_429"] * 20 + ["ok"]
    assert sum(site.hits[f"/{n}"] for n in range(20)) <= 2
    assert {row["detail"] for row in rows[:20]} == {"HTTP 429", "not asked, as its host wants to be left alone"}


class Nowhere(AbstractResolver):
    """A name server that knows no name."""

    asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = None) -> list[ResolveResult]:
        self.asked += 1
        raise socket.gaierror(socket.EAI_NONAME, host)

    async def close(self) -> None:
        pass


def test_a_name_that_does_not_exist_is_asked_for_once(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Nowhere()
    monkeypatch.setattr("dreamloom.scrape.web.http.system_resolver", lambda: nowhere)
    rows = site.scraped(collection, [f"http://no-such-name.example/{n}" for n in range(50)])
    assert statuses(rows) == ["dns_unknown"] * 50
    assert nowhere.asked == 1


def test_a_limit_of_a_host_holds_also_for_those_who_are_sent_there(site: Any, collection: Collection) -> None:
    targets = [site.crowd(f"/{n}") for n in range(12)]
    sent = [
        site.put(f"/to/{n}", status=302, headers={"Location": to}).replace("127.0.0.1", OTHER)
        for n, to in enumerate(targets[:6])
    ]
    rows = site.scraped(collection, [*sent, *targets[6:]], concurrency_per_host=2)
    assert statuses(rows) == ["http_404"] * 12
    assert site.max_concurrent == 2


# The breaker by itself


@given(events=st.lists(st.booleans(), max_size=60), most=st.integers(1, 5))
def test_a_breaker_opens_after_as_many_failures_in_a_row_and_an_answer_closes_it(events: list[bool], most: int) -> None:
    breaker, row, opened = CircuitBreaker(most), 0, 0
    for now, answered in enumerate(events):
        if answered:
            breaker.record_response("h", now)
            row = opened = 0
            continue
        rest = breaker.record_failure("h", now)
        row += 1
        if row < most and not opened:
            assert rest == 0
            continue
        row, opened = 0, opened + 1
        if opened > MAX_OPENINGS:
            assert rest is None
            break
        assert rest is not None
        assert rest > 0


def test_failures_from_before_the_last_answer_do_not_count() -> None:
    """Of a host that hangs now and then, those that hang end one after the other."""
    breaker = CircuitBreaker(2)
    breaker.record_response("h", 10.0)
    assert [breaker.record_failure("h", began) for began in (1.0, 5.0, 9.9)] == [0, 0, 0]
    assert breaker.record_failure("h", 11.0) == 0
    assert breaker.record_failure("h", 11.0) != 0
    assert CircuitBreaker(None).record_failure("h", 0.0) == 0
