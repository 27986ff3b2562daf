"""init: what it writes is a project that plan takes, and it asks before it guesses."""

import json
from pathlib import Path
from typing import Any

import pytest

from dreamloom.flows.commands.cli import run
from dreamloom.flows.project.project import load_project

MODEL = str(Path(__file__).parents[3] / "demo" / "models" / "stable-diffusion")


@pytest.mark.parametrize("called", ["jo", "rc-car", "yes", "2024", 'a "b": {c} # d', "猫", "a man"])
def test_what_init_writes_is_a_project(called: str, small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    target = small.folder / "new"
    flags = [
        "--images",
        str(small.folder / "circles"),
        "--ground-truth",
        str(small.folder / "squares"),
        "--base",
        MODEL,
    ]
    assert run(["init", str(target), *flags, "--called", called, "--preset", "12gb"]) == 0
    project = load_project(target)
    assert (project.name, project.train.preset, project.workspace) == (called, "12gb", target / "work")
    assert [str(source.role) for source in project.sources.values()] == ["training", "ground_truth"]
    assert run(["plan", str(target)]) == 0
    out = capsys.readouterr().out
    assert "6 images" in out


def test_init_without_ground_truth_says_how_to_add_some(small: Any) -> None:
    assert run(["init", str(small.folder / "new"), "--images", str(small.folder / "circles"), "--base", MODEL]) == 0
    text = (small.folder / "new" / "project.yaml").read_text()
    assert "# kept: {kind: coco, role: ground_truth" in text
    assert json.dumps("circles") in text
    assert list(load_project(small.folder / "new").sources) == ["subject"]


def test_init_overwrites_nothing_and_names_what_is_wrong(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = small.file.read_bytes()
    assert run(["init", str(small.folder), "--images", str(small.folder / "circles")]) == 2
    assert "project.yaml is there already; edit it, or name another folder." in capsys.readouterr().err
    assert small.file.read_bytes() == before
    empty = small.folder / "empty"
    empty.mkdir()
    assert run(["init", str(small.folder / "new"), "--images", str(empty)]) == 2
    assert "holds no images" in capsys.readouterr().err
    assert run(["init", str(small.folder / "new"), "--images", str(small.folder / "nowhere")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert run(["init", str(small.folder / "new")]) == 2  # no terminal to ask in
    assert "--images is missing" in capsys.readouterr().err
    circles = ["--images", str(small.folder / "circles")]
    assert run(["init", str(small.folder / "circles" / "new"), *circles]) == 2
    assert "so its output would be taken in; name another folder." in capsys.readouterr().err
    assert run(["init", str(small.folder / "new"), *circles, "--ground-truth", str(small.folder / "circles/.")]) == 2
    assert "is the folder of --images, too" in capsys.readouterr().err
    assert not (small.folder / "new").exists()
