"""What is printed while work goes on, and after it."""

import time

import pytest

from dreamloom.base.stage import Summary
from dreamloom.flows.terminal.terminal import (
    LINE_SECONDS,
    Terminal,
    duration,
    funnel_table,
    print_table,
    rows_table,
    size,
    stage_line,
)


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_short_work_shows_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal() as terminal, terminal.watch("score a") as progress:
        for done in range(10):
            clock.now += 0.15
            progress(done, 10)
    assert capsys.readouterr().err == ""


def test_long_work_shows_a_line_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal() as terminal, terminal.watch("score a") as progress:
        for done in range(201):
            progress(done * 10, 2000, f"{done} bad")
            clock.now += 0.1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 + int((20 - 2) / LINE_SECONDS)
    assert lines[0] == "score a: 200 of 2,000 (10 %), 100.0/s, 18 s left, 20 bad"


def test_the_rate_is_that_of_this_run_and_phase(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal() as terminal, terminal.watch("train") as progress:
        progress(500, 1000)  # where an earlier run stopped
        clock.now += 10
        progress(600, 1000)
        progress(0, 50)  # another phase
        clock.now += 10
        progress(10, 50)
    assert [line.split(", ")[1] for line in capsys.readouterr().err.splitlines()] == ["10.0/s", "1.0/s"]


def test_the_rate_and_the_time_left_are_those_of_the_last_half_minute(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Terminal() as terminal, terminal.watch("scrape") as progress:
        done = 0
        for rate in [100] * 600 + [2] * 40:  # after ten minutes the machine slows
            progress(done, 70_000)
            done += rate
            clock.now += 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f", 2.0/s, {duration((70_000 - 60_078) / 2)} left")


@pytest.mark.parametrize("first", [(0, None), (900, 1000), (0, 0)])
def test_a_phase_does_not_inherit_the_time_of_the_one_before(
    clock: Clock, capsys: pytest.CaptureFixture[str], first: tuple[int, int | None]
) -> None:
    with Terminal() as terminal, terminal.watch("filter") as progress:
        progress(*first)
        clock.now += 3600
        for done in range(0, 1000, 100):
            progress(done, 1000)
            clock.now += 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("filter: 500 of 1,000 (50 %), 100.0/s, 5.0 s left")


def test_unknown_totals_have_no_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal() as terminal, terminal.watch("filter a") as progress:
        progress(0, None)
        clock.now += 10
        progress(1_000_000, None)
    assert capsys.readouterr().err == "filter a: 1,000,000, 100,000.0/s\n"


def test_a_stage_is_summed_up_in_a_line() -> None:
    summary = Summary(
        rows=1200, kept=1000, dropped={"timeout": 50, "http_404": 150}, seconds=75, bytes_written=3 * 10**6
    )
    summary.parts_done = 1
    assert stage_line("scrape", "people", summary) == (
        "scrape   people          1,200 in     1,000 kept, 200 dropped (http_404 150, timeout 50); 75 s, 3.0 MB"
    )
    there = Summary(rows=2, kept=2, parts_before=1)
    assert stage_line("score", "a", there).endswith("there already")
    doubted = Summary(rows=3, kept=2, dropped={"truncated": 1}, marked={"doubtful": 1}, parts_done=1)
    assert "2 kept, of which doubtful 1, 1 dropped (truncated 1);" in stage_line("caption", "a", doubted)


def test_the_funnel_names_each_source_stage_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    funnel = {
        "web": {"candidates": Summary(9, 5, {"words": 4}), "records": Summary(5, 3, {"http_404": 2})},
        "disk": {"records": Summary(7, 7, marked={"doubtful": 3})},
    }
    print_table(funnel_table(funnel))
    out = capsys.readouterr().out
    for text in ("candidates", "records", "web", "disk", "-4 words", "-2 http_404", "3 doubtful"):
        assert text in out


def test_rows_without_a_value_have_an_empty_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(rows_table("t", [{"a": 1200, "b": "x"}, {"a": None, "b": 0.5}]))
    out = capsys.readouterr().out
    assert "1,200" in out
    assert "0.5" in out
    assert "None" not in out


def test_durations_and_sizes_read_well() -> None:
    assert [duration(s) for s in (0.04, 9.94, 61, 200, 7500)] == ["0.0 s", "9.9 s", "61 s", "3 min 20 s", "2 h 05 min"]
    assert [size(b) for b in (0, 999, 1500, 2_000_000, 3 * 10**9, 5 * 10**12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.0 MB",
        "3.0 GB",
        "5.0 TB",
    ]
