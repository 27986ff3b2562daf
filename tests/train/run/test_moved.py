"""A run that was moved with its workspace finds what it names by its path."""

from pathlib import Path

import pytest

from dreamloom.train.config import TrainConfig
from dreamloom.train.run.folder import read_settings, write_settings


def test_paths_are_found_where_they_lie_now_seen_from_the_workspace(tmp_path: Path) -> None:
    project = tmp_path / "before"
    for folder in ("work/dataset", "work/heldout", "models/base", "gone"):
        (project / folder).mkdir(parents=True)
    (project / "models" / "base" / "weights").touch()
    config = TrainConfig(base=str(project / "models" / "base"), vae=str(project / "gone"))
    run = project / "work" / "runs" / "first"
    write_settings(run, "recipe", project / "work" / "dataset", project / "work" / "heldout", config)
    before = read_settings(run)
    (project / "gone").rmdir()
    now = project.rename(tmp_path / "now")
    moved = read_settings(now / "work" / "runs" / "first")
    assert moved["folder"] == str(now / "work" / "dataset") and moved["heldout"] == str(now / "work" / "heldout")
    assert moved["config"]["base"] == str(now / "models" / "base")
    assert moved["config"]["vae"] == str(project / "gone"), "it is nowhere"
    changed = {name for name, value in moved["config"].items() if value != before["config"][name]}
    assert changed == {"base"} and moved["recipe"] == before["recipe"]


def test_a_run_beside_its_training_folder_may_be_moved_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "before" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "before")
    write_settings(Path("run"), "recipe", Path("images"), None, TrainConfig())
    now = (tmp_path / "before").rename(tmp_path / "now")
    assert read_settings(now / "run")["folder"] == str(now / "images")
