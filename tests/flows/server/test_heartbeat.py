"""The beats by which a server tells a living run from one whose process is gone."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dreamloom.flows.server.automations import BEAT_SECONDS, SILENT_SECONDS
from dreamloom.flows.server.heartbeat import MAX_MISSED, missed_beats


@given(st.floats(0, BEAT_SECONDS * MAX_MISSED))
def test_a_server_that_was_away_is_told_of_beats_without_a_gap(away_s: float) -> None:
    now = datetime.now(UTC)
    told = now - timedelta(seconds=away_s)
    beats = missed_beats(told, now)
    assert beats[-1] == now
    for before, after in pairwise([told, *beats]):
        assert timedelta(0) <= after - before < timedelta(seconds=SILENT_SECONDS / 2)


def test_after_a_long_night_no_more_beats_are_told_than_a_server_takes_at_once() -> None:
    now = datetime.now(UTC)
    assert len(missed_beats(now - timedelta(days=3), now)) == MAX_MISSED
