"""plan and show: what they say, and that they change nothing."""

import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamloom.base.stage import Summary
from dreamloom.flows.chain.steps import Outcome, Step
from dreamloom.flows.commands.cli import run
from dreamloom.flows.plan.forecast import forecast, measure_sources
from dreamloom.flows.plan.plan_warnings import disk_warnings
from dreamloom.flows.plan.planned_steps import PlannedStep
from tests.flows.conftest import HOUSE


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def said(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(tokens) == 0
    return capsys.readouterr().out


def test_plan_of_a_new_project_says_what_is_there_and_writes_nothing(
    small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(small.folder)
    out = said(["plan", str(small.file)], capsys)
    assert "6 images, 1.9 kB" in out
    assert "ingest squares" in out
    assert "not known yet" in out
    assert files(small.folder) == before


def test_plan_of_a_finished_project_says_how_training_goes(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(finished.folder)
    out = said(["plan", str(finished.file)], capsys)
    assert "Nothing to do: everything is as project.yaml says." in out
    assert "2 steps, 4 images shown" in out
    assert "64 × 64" in out
    assert said(["plan", str(finished.file)], capsys) == out  # which is remembered
    finished.change("train", "max_train_steps", to=3)
    out = said(["plan", str(finished.file)], capsys)
    assert "3 steps, 6 images shown" in out
    assert "Nothing to do" not in out
    finished.change("train", "max_train_steps", to=2)
    assert {k: v for k, v in files(finished.folder).items() if k != finished.file} == {
        k: v for k, v in before.items() if k != finished.file
    }


def test_plan_takes_a_part_that_keeps_most_of_its_work_for_less() -> None:
    there = Summary(rows=30, kept=30, seconds=20.0, parts_done=2)

    class MostlyDone(Step):
        stage = "caption"

        def stale_parts(self) -> list[str]:
            return ["00001"]

        def run(self, *_: Any) -> Outcome:
            raise NotImplementedError

        def existing(self) -> Summary:
            return there

        def remaining_share(self, parts: Sequence[str]) -> float:
            return 0.25

    assert [PlannedStep(MostlyDone(), stale).seconds for stale in (None, [], ["00001"])] == [None, 0.0, 2.5]


def test_train_plans_any_training_folder_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / f"a thing_{number}.png")
    (tmp_path / "empty.png").touch()
    before = files(tmp_path)
    small = ["--resolution", "64", "--bucket-reso-steps", "16", "--batch-size", "2", "--epochs", "3"]
    out = said(["train", str(tmp_path), str(tmp_path / "run"), "--plan", *small], capsys)
    assert "5 steps, 9 images shown" in out and "64 × 64" in out
    assert "1 would take no part: empty.png (empty)." in out
    assert files(tmp_path) == before


def test_a_model_that_is_not_there_is_said_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("own", "heldout/training/own", "runs", "models"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(tmp_path / folder / "a thing_1.png")
    before = files(tmp_path)
    for command in (
        ["train", "own", "runs/x", "--base", "NONSENSE"],
        ["train", "own", "runs/x", "--plan", "--base", "NONSENSE"],
        ["train", "own", "runs/x", "--plan", "--base", "models/sd15"],
        ["evaluate", "runs/none", "--base", "models/sd15", "--heldout", "heldout"],
        ["evaluate", "models/sd15", "--base", "NONSENSE", "--heldout", "heldout"],
        ["export", "runs/none", "model"],
        ["export", "NONSENSE", "model"],
    ):
        assert run(command) == 2, command
        said = capsys.readouterr().err.strip()
        assert said.startswith("There is no ") and "\n" not in said, command
        assert files(tmp_path) == before, command


def test_a_projects_manifest_is_the_same_training_folder(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from dreamloom.train.data.folder import read_training_folder

    (table,) = finished.folder.rglob("dataset.parquet")
    rows, files = (
        [p for folder in read_training_folder(path) for p in folder.images] for path in (table, table.with_suffix(""))
    )
    assert [(p.caption, p.settings.multiply, p.source.read()) for p in rows] == [
        (p.caption, p.settings.multiply, p.source.read()) for p in files
    ]
    assert len(rows) > 1


def test_status_and_plan_import_little_and_no_command_torch_or_prefect_before_it_works(finished: Any) -> None:
    heavy = "{'torch', 'prefect', 'open_clip', 'transformers', 'diffusers', 'cv2', 'matplotlib', 'duckdb'}"
    files = (HOUSE / "flows" / "commands").glob("*.py")
    commands = ", ".join(f"dreamloom.flows.commands.{file.stem}" for file in files if file.stem != "__init__")
    assert "dreamloom.flows.commands.stages" in commands
    idle = (
        "{'asyncio', 'fsspec', 'pandas', 'pyarrow.compute', 'numpy.random', 'urllib.request', 'rich.progress', "
        "'dreamloom.train.data.dataset', 'dreamloom.flows.report.report'}"
    )
    script = (
        "import sys; from dreamloom.flows.commands.cli import run; run(['status', sys.argv[1]]); "
        f"print('of status:', *{idle} & set(sys.modules)); run(['plan', sys.argv[1]]); "
        f"import {commands}; print(*{heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, finished.file], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", "")
    assert "\nof status:\n" in done.stdout


@pytest.mark.parametrize("where", ["", "collections/squares", "dataset"])
def test_show_draws_a_sheet_and_a_table(
    finished: Any, where: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    for _ in range(2):  # an older sheet is replaced
        out = said(["show", str(finished.workspace / where), "--output", str(sheet)], capsys)
    assert "squares" in out
    with Image.open(sheet) as image:
        assert image.width > 200


def test_show_and_plan_say_how_many_captions_are_cut(
    finished: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for where in ("", "collections/squares"):
        out = said(["show", str(finished.workspace / where), "--output", str(tmp_path / "sheet.png")], capsys)
        assert f"tokens: none of {12 if not where else 6} captions is cut, CLIP reads 77; most: 5" in out
    assert "captions is cut, CLIP reads 32; most: " in said(["plan", str(finished.file)], capsys)  # the demo's CLIP
    (finished.workspace / "dataset" / "circles" / "long.png").hardlink_to(
        finished.folder / "circles/a red circle_(0).png"
    )
    (finished.workspace / "dataset" / "circles" / "long.txt").write_text("cat " * 99)
    out = said(["show", str(finished.workspace / "dataset"), "--output", str(tmp_path / "sheet.png")], capsys)
    assert "1 of 11 captions will be cut, as CLIP reads 77, both ends counted; most: 101, of circles/long.png" in out


def test_show_leaves_files_alone_that_are_not_its_own(
    finished: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.png"
    Image.new("RGB", (8, 8)).save(mine)
    before = mine.read_bytes()
    assert run(["show", str(finished.workspace), "--output", str(mine)]) == 2
    assert capsys.readouterr().err == f"{mine} exists and is not a contact sheet; name another file with --output.\n"
    assert mine.read_bytes() == before


def test_show_tells_the_history_of_a_image(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    image = next((finished.workspace / "dataset" / "circles").glob("*.png"))
    out = said(["show", str(finished.workspace / "dataset"), "--image", image.name], capsys)
    assert str(finished.folder / "circles") in out


def test_evaluate_leaves_files_alone_that_are_not_its_own(
    finished: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mine = tmp_path / "evaluation.json"
    mine.write_text("[1, 2]")
    tokens = ["--base", "a/b", "--heldout", str(finished.workspace / "heldout"), "--output", str(mine)]
    assert run(["evaluate", str(finished.workspace / "model"), *tokens]) == 2
    assert "exists and is not an evaluation" in capsys.readouterr().err
    assert mine.read_text() == "[1, 2]"


def test_plan_warns_of_ground_truth_that_is_too_small(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Six squares, of which an epoch would show eighteen beside six circles."""
    small.change("balance", "ratio", to=3)
    out = said(["plan", str(small.file)], capsys)
    assert "warning: squares has too few images (6) for 18 draws per epoch" in out and "18 images are enough" in out
    small.change("balance", "ratio", to=1)
    assert "for 18 draws" not in said(["plan", str(small.file)], capsys)
    small.change("choose", "max_ground_truth", to=2)
    out = said(["plan", str(small.file)], capsys)
    assert "warning: squares has too few images (2) for 6 draws per epoch" in out and "surplus" in out


def test_a_forecast_of_a_witness_is_held_out_and_never_trained_on(small: Any) -> None:
    small.change("sources", "squares", "role", to="witness")
    project = small.load()
    nothing_done = {"ingest circles": False, "ingest squares": False}
    found = forecast(project, nothing_done, measure_sources(project))
    assert found is not None
    rows = {source.name: (source.held_out, source.trained, source.multiply) for source in found.sources}
    assert rows == {"circles": (1, 5, Fraction(1)), "squares": (6, 0, Fraction(0))}


def test_two_projects_in_one_workspace_are_told(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    said(["run", str(small.file), "--until", "ingest"], capsys)
    second = small.folder / "second.yaml"
    second.write_text(small.file.read_text())
    shared = f"warning: {small.workspace} is the workspace of {small.file.resolve()}, too"
    assert shared not in said(["plan", str(second)], capsys), "with the same sources, it is a variant"
    second.write_text(small.file.read_text().replace("circles:", "rings:"))
    assert shared in said(["plan", str(second)], capsys)
    assert shared in said(["run", str(second), "--until", "ingest"], capsys)
    small.file.unlink()
    assert shared not in said(["plan", str(second)], capsys)


def test_plan_says_what_will_not_be_measured(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    few = "warning: too few images of role training are held out (1) for an interval of what is learned; 5 would do"
    assert few in said(["plan", str(small.file)], capsys)
    small.change("balance", "held_out", to=0.8)
    assert "warning: more images of role training are held out (5)" in said(["plan", str(small.file)], capsys)
    small.change("balance", "held_out", to=0)
    nothing = "warning: balance.held_out is 0, so neither learned nor forgotten is measured"
    assert nothing in said(["plan", str(small.file)], capsys)
    small.change("sources", "squares", to=None)
    assert "warning: no source has role: ground_truth, so nothing" in said(["plan", str(small.file)], capsys)


def test_a_model_that_is_nowhere_ends_run_before_anything_is_made(
    small: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # the hub's client has read it already, and stays offline
    small.change("train", "base", to="owner/name")
    assert run(["run", str(small.file)]) == 2
    assert "no folder owner/name, and the hub can't be asked" in capsys.readouterr().err
    assert not small.workspace.exists()


def test_plan_before_the_first_run_knows_images_sure_drops_and_steps(
    small: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(small.folder / "cache"))  # in which no speed is remembered
    Image.new("RGB", (8, 8)).save(small.folder / "circles" / "a tiny circle.png")
    (small.folder / "circles" / "a tiny circle.txt").write_text("IMG_0042")
    (small.folder / "circles" / "a broken circle.png").write_bytes(b"no image")
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0), b"IDAT")  # a photo that ingest shrinks
    png = b"".join(struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks)
    (small.folder / "circles" / "a large circle.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    first = sorted((small.folder / "squares").iterdir())[0]
    (small.folder / "squares" / "a copy of a square.png").write_bytes(first.read_bytes())
    small.change("train", "max_train_steps", to=None)
    small.change("train", "epochs", to=3)
    out = said(["plan", str(small.file)], capsys)
    assert "too_many_pixels" not in out
    assert "too_small 1" in out and "same bytes as another 1" in out and "not_an_image 1" in out
    assert "about 12 images an epoch, 18 steps, 36 images shown" in out
    assert "names which cameras and programs give" in out and "circles/a tiny circle.png ('IMG_0042')" in out
    assert "--probe measures it" in out and "of disk for checkpoints" in out


@pytest.mark.slow
def test_a_probe_gives_the_time_and_leaves_nothing(
    small: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(small.folder / "cache"))
    small.change("train", "ground_truth_ratio", to=2)
    assert re.search(
        r"4 images shown, about .* at [\d.,]+ images a second", said(["plan", str(small.file), "--probe"], capsys)
    )
    assert list(small.workspace.iterdir()) == []


def test_plan_says_why_and_for_the_dataset_as_it_will_be(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    finished.change("balance", "ratio", to=2)
    finished.change("train", "max_train_steps", to=None)
    finished.change("train", "epochs", to=2)
    out = said(["plan", str(finished.file)], capsys)
    assert "ratio: 1.0 → 2.0" in " ".join(out.split())
    assert "about 15 images an epoch, 15 steps, 30 images shown" in out, "5 of training, twice as many of ground truth"
    assert "images a second" in out, "as this machine trained before"
    finished.change("balance", "ratio", to=1)
    assert "epochs: " in " ".join(said(["plan", str(finished.file)], capsys).split())
    first, second, *_ = sorted((finished.folder / "circles").iterdir())
    said(["drop", str(finished.file), first.name], capsys)
    said(["rate", str(finished.file), second.name, "--witness"], capsys)
    assert "decided 1, witness 1" in said(["plan", str(finished.file)], capsys)
    small = finished.folder / "circles" / "a new circle.png"
    Image.new("RGB", (64, 64), "pink").save(small)
    assert "files of the source" in said(["plan", str(finished.file)], capsys)


def test_a_disk_that_is_too_small_is_said_before_anything_is_made(
    small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    small.change("train", "checkpoints_total_limit", to=10**9)
    assert run(["run", str(small.file)]) == 2
    assert "lower train.checkpoints_total_limit" in capsys.readouterr().err
    assert "warning: the run will write about" in said(["plan", str(small.file)], capsys)
    assert not (small.workspace / "collections").exists()


def test_plan_warns_of_a_disk_that_the_run_would_fill(small: Any) -> None:
    class Scrape(Step):
        stage = "scrape"

        def stale_parts(self) -> list[str]:
            return ["00001", "00002"]

        def run(self, *_: Any) -> Outcome:
            raise NotImplementedError

        def existing(self) -> Summary:
            return Summary(rows=10, kept=10, bytes_written=10**15, parts_done=1)

    planned = PlannedStep(Scrape(), ["00001", "00002"])
    assert planned.bytes == 2 * 10**15
    (warning,) = disk_warnings(small.load(), [planned])
    assert warning.startswith("the run will write about 2000.0 TB, and the disk of ")
    assert disk_warnings(small.load(), [PlannedStep(Scrape(), [])]) == []
