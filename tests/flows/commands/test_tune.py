"""dreamloom tune: a project's training folder is probed, and its files are not changed."""

import json
from fractions import Fraction

import pytest

from dreamloom.flows.commands.cli import run as dreamloom
from tests.flows.conftest import Small


@pytest.mark.slow
def test_a_project_is_tuned_and_not_changed(finished: Small, capsys: pytest.CaptureFixture[str]) -> None:
    finished.change("train", "limit_mean", to=5.0)
    before = finished.file.read_bytes()
    assert dreamloom(["tune", str(finished.file), "--ratios", "2", "--ratios", "0.5", "--share", "1"]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 probes to run, 10 images to show" in said
    assert "for project.yaml:\nbalance: {ratio: 0.5}" in said
    assert finished.file.read_bytes() == before
    probes = json.loads((finished.workspace / "tune" / "tune.json").read_text())["probes"]
    assert [Fraction(probe["ratio"]) for probe in probes] == [Fraction(1, 2), 2]
    assert dreamloom(["tune", str(finished.file), "--ratios", "2", "--ratios", "0.5", "--share", "1"]) == 0
    assert "0 of 2 probes to run" in capsys.readouterr().out


def test_settings_of_training_are_the_project_s(finished: Small, capsys: pytest.CaptureFixture[str]) -> None:
    assert dreamloom(["tune", str(finished.file), "--learning-rate", "1"]) == 2
    assert "write the settings there" in capsys.readouterr().err
