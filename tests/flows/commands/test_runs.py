"""runs and compare: what they tell of run folders, without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.flows.commands.cli import run
from dreamloom.train.loop.continuing import continue_run
from dreamloom.train.run.checksums import check_files
from dreamloom.train.run.removal import optimizer_bytes


@pytest.fixture
def twice(finished: Any) -> Any:
    """The small project with a second run, of one image less, another caption and another learning rate."""
    (first,) = (finished.workspace / "runs").glob("2*")
    second = Path(shutil.copytree(first, first.parent / "later"))
    settings = json.loads((second / "config.json").read_text())
    settings["began"] = "2999-01-01T00:00:00"
    settings["config"] |= {"learning_rate": 0.5, "base": "/moved/model"}
    settings["data"]["circles"] |= {"images": settings["data"]["circles"]["images"] - 1, "contents": "x"}
    settings["data"]["squares"] |= {"multiply": "7/2"}
    (second / "config.json").write_text(json.dumps(settings))
    rows = pq.read_table(second / "images.parquet")
    texts = rows["caption"].to_pylist()
    rows = rows.set_column(3, rows.schema.field(3), [[f"{texts[0]} at night", *texts[1:]]])
    pq.write_table(rows.slice(0, len(rows) - 1), second / "images.parquet")
    return finished


def test_runs_are_listed_with_what_each_changed(twice: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (twice.file, twice.folder, twice.workspace, twice.workspace / "runs"):
        assert run(["runs", str(place), "--json"]) == 0
        first, second = json.loads(capsys.readouterr().out)
        assert first["config_changes"] == {} and first["data_changes"] == []
        assert second["config_changes"] == {"learning_rate": {"before": first_rate(twice), "now": 0.5}}
        many = first["images"]["circles"]["images"]
        assert second["data_changes"][0] == f"circles: {many - 1} instead of {many} images"
        assert second["data_changes"][1].startswith("squares: multiply 3.5 instead of ")
        assert first["finished"] and first["steps"] == 2 and first["bytes"] > 10_000
        assert first["learned"]["images"] > 0 and first["base"].endswith("stable-diffusion")
    assert run(["runs", str(twice.file)]) == 0
    out = capsys.readouterr().out
    assert "later" in out and "2999-01-01" in out and "\\n" not in out, "each change stands in a line of its own"


def first_rate(project: Any) -> float:
    (first,) = (project.workspace / "runs").glob("2*")
    return float(json.loads((first / "config.json").read_text())["config"]["learning_rate"])


def test_two_runs_are_set_side_by_side(twice: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = (twice.workspace / "runs").glob("2*")
    target = tmp_path / "side by side"
    assert run(["compare", str(first), str(twice.workspace / "runs" / "later"), "--output", str(target)]) == 0
    out = capsys.readouterr().out
    assert "learning_rate" in out and "at night" in out and "gone" in out and "n = " in out
    page = target.with_name("side by side.html").read_text()
    assert "data:image/jpeg;base64," in page and "a red circle" not in page.split("data:image")[1][:100]
    with Image.open(target.with_name("side by side.png")) as image:
        assert image.height > 3 * 64, "before, and a row for each run"


def test_where_nothing_differs_that_is_said(finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(finished.file), str(finished.workspace), "--output", str(tmp_path / "x")]) == 0
    assert "Config: no difference" in capsys.readouterr().out
    (tmp_path / "x.html").write_text("mine")
    assert run(["compare", str(finished.file), str(finished.workspace), "--output", str(tmp_path / "x")]) == 2
    assert (tmp_path / "x.html").read_text() == "mine" and "is no page of this command" in capsys.readouterr().err


def test_a_folder_without_runs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", str(tmp_path)]) == 2
    assert "holds no training run" in capsys.readouterr().err
    assert run(["compare", str(tmp_path / "nowhere"), str(tmp_path)]) == 2
    assert "is not there" in capsys.readouterr().err


def test_no_list_imports_torch(twice: Any, tmp_path: Path) -> None:
    heavy = "{'torch', 'prefect', 'transformers', 'diffusers', 'matplotlib', 'duckdb', 'scipy', 'cv2'}"
    code = (
        "import sys\nfrom dreamloom.flows.commands.cli import run\n"
        f"run(['runs', {str(twice.file)!r}])\n"
        f"run(['compare', *2 * [{str(twice.file)!r}], '--output', {str(tmp_path / 'x')!r}])\n"
        f"print('loaded:', *{heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


def copied(project: Any, name: str, began: str, **settings: Any) -> Path:
    """Another finished run of the project, older or newer."""
    (first,) = (project.workspace / "runs").glob("20*")
    run = Path(shutil.copytree(first, first.parent / name))
    (run / ".recipe").unlink()
    stored = json.loads((run / "config.json").read_text())
    stored["config"] |= settings
    (run / "config.json").write_text(json.dumps(stored | {"began": began}))
    return run


def test_prune_removes_what_nothing_hangs_on_and_only_when_told(
    finished: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = finished.workspace / "runs"
    (current,) = runs.glob("20*")
    old, noted, base = (copied(finished, name, f"1999-0{n}") for n, name in enumerate(("old", "noted", "base"), 1))
    (noted / "notes.txt").write_text("mine")
    new = copied(finished, "new", "2998", base=str(base / "checkpoints" / "4"))
    unfinished = copied(finished, "unfinished", "2999")
    (unfinished / "summary.json").unlink()
    (runs / "mine").mkdir()
    before = {file: file.read_bytes() for file in runs.rglob("*") if file.is_file()}
    assert run(["prune", str(finished.file), "--keep", "1"]) == 0
    assert "nothing was removed" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in before} == before
    assert run(["prune", str(finished.file), "--keep", "1", "--yes"]) == 0
    out = capsys.readouterr().out
    assert not old.exists() and "holds notes.txt" in out and "new was trained from it" in out
    left = {file for file in before if file.exists() and old not in file.parents}
    assert left == {file for file in before if old not in file.parents}, "current, newest and named ones stay whole"
    assert all(folder.is_dir() for folder in (current, noted, base, new, unfinished, runs / "mine"))


def test_without_a_number_only_optimizer_states_go_and_weights_still_load(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = copied(finished, "old", "1999")
    (checkpoint,) = (old / "checkpoints").iterdir()
    assert run(["prune", str(finished.workspace), "--yes"]) == 0
    assert not (checkpoint / "optimizer.pt").exists()
    check_files(checkpoint)
    with pytest.raises(UserError, match="has lost its optimizer's state"):
        continue_run(old, tmp_path / "on", epochs=9)
    assert "are free now" in capsys.readouterr().out
    assert optimizer_bytes(next((finished.workspace / "runs").glob("20*"))) > 0


def test_keep_runs_is_heeded_after_a_run(finished: Any) -> None:
    old = copied(finished, "old", "1999")
    finished.change("keep_runs", to=1)
    finished.run()
    assert not old.exists()
