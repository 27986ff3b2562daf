"""Tuning: probes differ in their ground truth alone, what is done stays, and the least that holds is recommended."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.measure import Measure
from dreamloom.train.tune.config import TuneConfig
from dreamloom.train.tune.probes import plan_probes
from dreamloom.train.tune.results import ProbeResult, Tuning
from dreamloom.train.tune.tune import tune
from tests.train.loop.test_loop import stopping

Config = Callable[..., TrainConfig]
TUNING = TuneConfig(ratios=[1.0, 0.0, 0.5], prior_prediction_weights=[0.5], share=0.5)


def test_probes_show_the_same_other_images_and_the_ratio_of_ground_truth(
    tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    run = config(base=tiny_base, epochs=8, lr_warmup_images=10, ground_truth=["ground"], limit_mean=0.1)
    for each in (
        run,
        config(**{**run.model_dump(exclude_unset=True), "auto_ratio": True, "evaluate_every_n_steps": 2}),
    ):
        probes = plan_probes(folder, tmp_path / "tune", each, TUNING, heldout)
        assert [probe.title for probe in probes] == [
            "ratio 0",
            "ratio 0.5",
            "ratio 0.5, prior prediction 0.5",
            "ratio 1",
            "ratio 1, prior prediction 0.5",
        ]
        assert [probe.images for probe in probes] == [20, 30, 30, 40, 40], "half of 8 epochs of 5 images, and the rest"
        assert {probe.config.lr_warmup_images for probe in probes} == {5}
        assert [probe.config.prior_prediction for probe in probes] == [0, 0, 1, 0, 1]
        assert len({probe.folder for probe in probes}) == 5
    longer = plan_probes(folder, tmp_path / "tune", run, TUNING.model_copy(update={"share": 1.0}), heldout)
    assert not {probe.folder for probe in longer} & {probe.folder for probe in probes}
    with pytest.raises(UserError, match="tune needs ground_truth"):
        plan_probes(folder, tmp_path / "tune", config(base=tiny_base), TUNING, heldout)


@pytest.mark.slow
def test_a_tuning_that_was_stopped_goes_on_and_keeps_what_is_done(
    tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    settings: dict[str, Any] = {"ground_truth": ["ground"], "limit_mean": 0.1, "batch_size": 4, "learning_rate": 1e-3}
    run, output = config(base=tiny_base, epochs=4, **settings), tmp_path / "tune"
    tuning = TuneConfig(ratios=[0.5, 1.0], share=1.0)
    stopped = tune(folder, output, run, tuning, heldout, stopping("ratio 1: ", 36))  # of 30 and 40
    assert not stopped.finished and [result.ratio for result in stopped.results] == [0.5]
    (first,) = json.loads((output / "tune.json").read_text())["probes"]
    written = {path: path.stat().st_mtime_ns for path in output.glob("probes/0.5-*/*.json")}
    found = tune(folder, output, run, tuning, heldout)
    assert found.finished and found.results[0] == stopped.results[0]
    assert {path: path.stat().st_mtime_ns for path in output.glob("probes/0.5-*/*.json")} == written
    stored = json.loads((output / "tune.json").read_text())
    assert stored["probes"][0] == first and stored["recommendation"] == found.recommendation
    assert (output / "tune.png").stat().st_size > 0 and not list(output.glob("probes/*/checkpoints"))
    assert tune(folder, output, run, tuning, heldout) == found, "nothing is left to do"


def result(ratio: float, learned: float, excess: float, weight: float | None = None) -> ProbeResult:
    measure = Measure(learned, 0.01, 1.0, 1.0 - learned, 9)
    forgotten = replace(measure, change=0.02 + excess)
    broken = f"forgotten {100 * (0.02 + excess):.1f} % (limit 2 %)" if excess else ""
    title = f"ratio {ratio:g}"
    return ProbeResult(title, ratio, weight, measure, forgotten, None, None, excess, broken, 8, 1.0)


def test_the_least_ground_truth_that_holds_is_recommended_or_what_came_nearest() -> None:
    config = TrainConfig(limit_mean=0.02)
    broken, held = [result(0, 0.9, 0.3), result(0.5, 0.8, 0.01)], [result(1, 0.6, 0), result(2, 0.9, 0)]
    found = Tuning((*broken, *held), config, True)
    assert found.recommended == held[0] and found.line() == "balance: {ratio: 1}"
    assert found.recommendation == "ratio 1 is the least ground truth probed that holds the limits (mean 2 %)"
    prior = result(1, 0.7, 0, weight=0.5)
    assert Tuning((*broken, *held, prior), config, True).line() == (
        "balance: {ratio: 1}\ntrain: {prior_prediction: 1, prior_prediction_weight: 0.5}"
    )
    none = Tuning(tuple(broken), config, True)
    assert none.recommended is None and none.line() == ""
    assert none.recommendation == (
        "no probe holds the limits (mean 2 %); the nearest is ratio 0.5: forgotten 3.0 % (limit 2 %)"
    )
    assert ["prior prediction" in found.rows()[0] for found in (none, Tuning((prior,), config, True))] == [False, True]
