"""How often a run evaluates and draws where the config leaves it open."""

import pytest

from dreamloom.train.settings.run import steps_between


@pytest.mark.parametrize(("num_steps", "times"), [(20_000, 10), (905, 10), (300, 6), (40, 1)])
def test_a_run_of_any_length_is_looked_at_about_ten_times(num_steps: int, times: int) -> None:
    every = steps_between(None, num_steps)
    assert -(-num_steps // every) == times


@pytest.mark.parametrize("every", [0, 7])
def test_a_number_is_kept(every: int) -> None:
    assert steps_between(every, 1000) == every
