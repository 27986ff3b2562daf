"""doctor: each thing that a fine-tune needs has a finding, and what is amiss says how to mend it."""

import sys
from pathlib import Path

import pytest

from dreamloom.flows.commands.cli import run
from dreamloom.flows.commands.doctor import examine

LOOKED_AT = {"Python", "packages", "memory", "disk", "project's folder", "temporary folder", "base model"}


def test_everything_is_looked_at_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [finding.name for finding in examine(tmp_path / "new", network=False)]
    assert {*LOOKED_AT, "GPU", "captioning model"} <= set(names)
    assert run(["doctor", str(tmp_path / "new")]) == 0
    assert list(tmp_path.iterdir()) == []
    assert "Python" in capsys.readouterr().out


def test_what_stops_everything_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert run(["doctor", str(tmp_path)]) == 1
    assert "use Python 3.11, 3.12 or 3.13" in " ".join(capsys.readouterr().out.split())


def test_a_model_that_the_hub_can_not_be_asked_for_says_what_to_do(tmp_path: Path) -> None:
    base = next(f for f in examine(tmp_path, network=True) if f.name == "base model")  # the tests are offline
    assert base.mend == "" or "name its folder" in base.mend
