"""The ratio that a run decides by itself: a function of its evaluations, within bounds, up where a limit is near."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.controller import LAST, Stretch, decide_stretches
from dreamloom.train.loop.limits import find_end
from dreamloom.train.loop.loop import train
from dreamloom.train.run.folder import TrainSummary, list_checkpoints, read_summary
from dreamloom.train.settings.limits import LEAST_RATE, LEAST_RATIO, MOST_RATIO
from tests.train.loop.test_limits import judged, point
from tests.train.loop.test_loop import assert_same, outcome, stopping

Config = Callable[..., TrainConfig]
LIMIT = TrainConfig(limit_mean=0.02)


def stretches_of(*forgotten: float, done: float = 0.2, error: float = 0.001) -> tuple[Stretch, ...]:
    """What is decided at a limit of 2 %, if nothing was forgotten at first and then so much, each with this error."""
    points = [{**point(8 * place, 0.5, value), "done": done} for place, value in enumerate((0.0, *forgotten))]
    for each in points:
        each["forgotten"]["error"] = error
    return decide_stretches(points, LIMIT)


def ratios_of(*forgotten: float, done: float = 0.2, error: float = 0.001) -> list[float]:
    """The ratios of `stretches_of`."""
    return [float(stretch.ratio) for stretch in stretches_of(*forgotten, done=done, error=error)]


@given(st.lists(st.floats(-1, 10), max_size=30), st.integers(0, 30), st.floats(0, 1), st.floats(0, 0.02))
def test_a_ratio_is_within_bounds_moves_by_two_and_depends_on_what_came_before_alone(
    forgotten: list[float], known: int, done: float, error: float
) -> None:
    ratios = ratios_of(*forgotten, done=done, error=error)
    assert len(ratios) == len(forgotten) + 1
    assert ratios[: known + 1] == ratios_of(*forgotten[:known], done=done, error=error)
    assert all(float(LEAST_RATIO) <= ratio <= float(MOST_RATIO) for ratio in ratios)
    moves = [after / before for before, after in pairwise(ratios)]
    assert set(moves) <= {0.5, 1.0, 2.0} and (0.5, 0.5) not in pairwise(moves)
    for before, value, move, ratio in zip([0.0, *forgotten], forgotten, moves, ratios, strict=False):
        assert move >= 1 or (value + 1.95 * error < 0.02 and done < LAST), "less only where the limit is surely held"
        assert move == 2 or ratio == MOST_RATIO or value <= max(0.02, 0.75 * before), "more wherever a limit is broken"


@given(st.lists(st.floats(0.0201, 10), min_size=1, max_size=10))
def test_a_ratio_that_broke_a_limit_is_not_tried_again(later: list[float]) -> None:
    ratios = ratios_of(0.0, 0.0, 0.0, 0.0, 0.03, *later, *[0.0] * 9)  # 1, 1/2, 1/4: there it broke
    assert ratios[:6] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.5]
    assert min(ratios[6:]) >= 0.5


def test_the_law() -> None:
    assert ratios_of(*[0.0] * 8) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.125], "held twice: less, to an eighth"
    assert ratios_of(0.015, 0.015, 0.015, error=0.005) == [1, 1, 1, 1], "held, but not surely: as it is"
    assert ratios_of(0.0, 0.0, 0.0, done=0.7) == [1, 1, 1, 1], "no less in the last third"
    assert ratios_of(0.015, done=0.9, error=0.005) == [1, 2], "but more, where a limit is not surely held"
    assert ratios_of(0.1, 0.2, 0.3) == [1, 2, 4, 4], "more, up to four times"
    assert ratios_of(0.1, 0.06, 0.03) == [1, 2, 2, 2], "it falls by itself"
    assert ratios_of(0.1, 0.09) == [1, 2, 4], "but not fast enough"
    assert ratios_of(0.1, 0.0, 0.0, 0.0) == [1, 2, 2, 1, 1], "the shock of the first steps condemns no ratio"


def rates_of(*forgotten: float, done: float = 0.2) -> list[float]:
    """The factors of the learning rates of `stretches_of`."""
    return [float(stretch.rate) for stretch in stretches_of(*forgotten, done=done)]


@given(st.lists(st.floats(-1, 10), max_size=30), st.floats(0, 1))
def test_rates_stay_within_bounds_and_rise_only_where_the_limit_is_held(forgotten: list[float], done: float) -> None:
    rates = rates_of(*forgotten, done=done)
    assert all(float(LEAST_RATE) <= rate <= 1 for rate in rates)
    for value, (before, after) in zip(forgotten, pairwise(rates), strict=True):
        assert after >= before or value > 0.02
        assert after <= before or (value < 0.02 and done < LAST)


def test_rates_are_lowered_where_more_ground_truth_is_not_enough() -> None:
    assert rates_of(0.1, 0.2, 0.3, 0.4, 0.5, 0.6) == [1, 1, 0.5, 0.25, 0.125, 0.125, 0.125], "from the second on"
    assert rates_of(0.1, 0.06, 0.04, 0.03) == [1, 1, 1, 1, 1], "it falls by itself"
    assert rates_of(0.1, 0.09, 0.0, 0.0, 0.0, 0.0) == [1, 1, 0.5, 0.5, 1, 1, 1], "held twice: as before"
    assert ratios_of(0.1, 0.09, 0.0, 0.0, 0.0, 0.0) == [1, 2, 4, 4, 4, 4, 2], "and then less ground truth"
    assert rates_of(0.1, 0.11, 0.0, 0.0, 0.0, 0.0)[-1] == 0.5, "but not where it rose at that rate"
    assert rates_of(0.1, 0.09, 0.0, 0.0, 0.0, done=0.7)[-1] == 0.5, "nor in the last third"


def test_early_in_a_run_rates_are_lowered_at_once_and_no_ratio() -> None:
    """The shock of the first steps makes a model forget most, and what is not rehearsed hardly comes back."""
    assert rates_of(0.1, 0.09, done=0.05) == [1, 0.5, 0.25]
    assert ratios_of(0.0, 0.0, 0.0, done=0.05) == [1, 1, 1, 1], "little is known yet"


def test_a_limit_is_given_up_only_where_nothing_is_left_to_try() -> None:
    points = judged(LIMIT, *[{**point(8 * place, 0.5, 0.1 * place), "done": (place + 1) / 12} for place in range(10)])
    stretches = decide_stretches(points, LIMIT)
    for place in range(1, len(points)):
        points[place] |= {"ratio": float(stretches[place - 1].ratio), "rate": float(stretches[place - 1].rate)}
    assert [float(stretch.ratio) for stretch in stretches[:4]] == [1, 2, 4, 4]
    ends = [bool(find_end(points[:count], LIMIT, 72)) for count in range(1, 11)]
    assert ends == [False] * 7 + [True] * 3, "from the third evaluation at the most ground truth and the least rate on"


@pytest.fixture
def settings(tiny_base: str, config: Config) -> TrainConfig:
    """Of a run that learns fast enough to break its limit."""
    auto: dict[str, Any] = {"auto_ratio": True, "ground_truth": ["ground"], "limit_mean": 0.1, "learning_rate": 3e-3}
    shown: dict[str, Any] = {"epochs": 3, "evaluate_every_n_steps": 2, "lr_scheduler": "cosine"}
    return config(base=tiny_base, ema_half_life_images=2, **shown, **auto)


@pytest.mark.slow
def test_a_run_moves_its_ratio_says_what_it_showed_and_goes_on_to_the_same_bits(
    settings: TrainConfig, folder: Path, heldout: Path, tmp_path: Path
) -> None:
    """It is stopped inside a stretch, in an evaluation, and where a stretch ends. Its epochs count the other images."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    summary = train(folder, whole, settings, heldout)
    points = json.loads((whole / "evaluation.json").read_text())["points"]
    ratios, rates = ([point[name] for point in points[1:]] for name in ("ratio", "rate"))
    decided = decide_stretches(points, settings)[:-1]
    assert len(set(ratios)) > 1 and ratios == [float(stretch.ratio) for stretch in decided]
    assert rates == [float(stretch.rate) for stretch in decided]
    ends = [point["images_seen"] for point in points]
    asked = sum((after - before) * r / (1 + r) for (before, after), r in zip(pairwise(ends), ratios, strict=True))
    assert abs(summary.shown["ground"] - asked) <= 1
    assert abs(summary.shown["own"] - 3 * 5) <= 1 and summary.images_seen == ends[-1] == summary.total_images
    assert [point["done"] for point in points[1:]] == sorted({point["done"] for point in points[1:]})
    assert summary.asked["ground"] == pytest.approx(asked / summary.images_seen)
    assert sum(summary.shown.values()) == summary.images_seen
    for what, at in [("images/s", 6), ("evaluating", 1), ("images/s", 16), ("images/s", 20)]:
        assert not train(folder, stopped, settings, heldout, stopping(what, at)).finished
    assert train(folder, stopped, settings, heldout).finished
    assert_same(outcome(stopped), outcome(whole))


@pytest.mark.slow
def test_a_run_takes_the_rates_that_its_evaluations_ask_for(
    settings: TrainConfig, folder: Path, heldout: Path, tmp_path: Path
) -> None:
    run, file = tmp_path / "run", tmp_path / "run" / "evaluation.json"
    assert not train(folder, run, settings, heldout, stopping("images/s", 12)).finished
    stored = json.loads(file.read_text())
    for each in stored["points"][1:]:  # far beyond the limit
        each["forgotten"]["change"] = 5.0
    file.write_text(json.dumps(stored))
    assert not train(folder, run, settings, heldout, stopping("images/s", 16)).finished
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rates = {record["images_seen"]: record["rate"] for record in records if "rate" in record}
    assert 0 < rates[16] < 0.6 * rates[12]


@pytest.mark.slow
def test_a_run_that_ended_and_lost_its_summary_counts_the_same(
    settings: TrainConfig, folder: Path, heldout: Path, tmp_path: Path
) -> None:
    tight = settings.model_copy(update={"patience": 1, "limit_mean": 1e-6, "learning_rate": 0.02})
    summary = train(folder, tmp_path / "run", tight, heldout)
    assert "no better checkpoint" in summary.ended and summary.images_seen < summary.total_images
    assert sum(summary.shown.values()) == summary.images_seen
    (tmp_path / "run" / "summary.json").unlink()
    again = train(folder, tmp_path / "run", tight, heldout)
    assert (again.shown, again.asked, again.ended) == (summary.shown, summary.asked, summary.ended)
    assert isinstance(read_summary(tmp_path / "run"), TrainSummary) and list_checkpoints(tmp_path / "run")


def test_it_needs_ground_truth_and_a_limit(tiny_base: str, folder: Path, tmp_path: Path, config: Config) -> None:
    asked: dict[str, Any] = {"base": tiny_base, "auto_ratio": True, "limit_mean": 0.1, "evaluate_every_n_steps": 2}
    with pytest.raises(UserError, match="auto_ratio needs ground_truth: name the folders"):
        train(folder, tmp_path / "run", config(**asked))
    for missing in ({"limit_mean": None}, {"evaluate_every_n_steps": 0}):
        with pytest.raises(ValueError, match="auto_ratio needs limit_mean or limit_worst, and evaluate_every"):
            config(**{**asked, **missing})
