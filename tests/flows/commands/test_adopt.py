"""A training folder that was changed by hand: run stops or adopts, and there is always a way on."""

import json
from typing import Any

import pytest

from dreamloom.base.progress import silent
from dreamloom.flows.chain import chain
from dreamloom.flows.chain.train_steps import ProjectTrainStep
from dreamloom.flows.commands.cli import run

pytestmark = pytest.mark.slow


def test_run_stops_at_changes_by_hand_and_goes_on_with_them(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    squares, file = finished.workspace / "dataset" / "squares", str(finished.file)
    gone, renamed = sorted(squares.glob("*.png"))[:2]
    gone.unlink()
    renamed.rename(squares / "a box.png")
    before = chain.run_folder(finished.load())
    assert run(["plan", file]) == 0
    planned = capsys.readouterr().out
    assert "warning: the training folder was changed by hand (1 deleted, 1 renamed)" in planned
    assert "Nothing to do" not in planned
    assert run(["run", file]) == 2
    told = capsys.readouterr().err
    assert f"`dreamloom adopt {file}` makes decisions of it (or run --adopt)" in told
    assert run(["run", file, "--adopt"]) == 0
    assert "decided: 2 of squares" in capsys.readouterr().out
    assert chain.run_folder(finished.load()) != before
    assert (squares / "a box.png").is_file()
    assert not gone.exists()
    assert run(["run", file]) == 0
    assert "Nothing to do" in capsys.readouterr().out


def test_a_refused_change_finds_the_run_that_was_there(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (finished.workspace / "dataset" / "circles" / "mine.png").write_bytes(b"no image")
    (finished.workspace / "dataset" / "notes.md").write_text("mine")
    before = chain.run_folder(finished.load())
    assert run(["run", str(finished.file), "--adopt"]) == 2
    told = capsys.readouterr().err
    assert "mine.png (added): move it into the folder of a source" in told and "notes.md (added): move it else" in told
    assert run(["adopt", str(finished.file), "--refuse"]) == 0
    assert run(["run", str(finished.file)]) == 0
    assert chain.run_folder(finished.load()) == before
    assert [f.read_bytes() for f in finished.workspace.glob("refused/*/dataset/circles/mine.png")] == [b"no image"]


def test_a_run_of_other_images_is_left_alone(finished: Any) -> None:
    project = finished.load()
    first = chain.run_folder(project)
    settings = json.loads((first / "config.json").read_text())
    (first / "config.json").write_text(json.dumps(settings | {"recipe": "of other images"}))
    (first / "summary.json").unlink()
    assert ProjectTrainStep(project.workspace, project.train_config()).run(silent).changed
    assert chain.run_folder(project) != first
    assert (first / "checkpoints").is_dir()
