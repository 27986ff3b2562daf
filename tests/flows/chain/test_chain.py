"""The chain over a small project: all of it, nothing twice, and after a change only what hangs on it."""

import gc
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from dreamloom.base.errors import UserError
from dreamloom.base.progress import silent
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.base.tables.held_out import write_held_out
from dreamloom.curate.manifest import read_manifest
from dreamloom.flows.chain import chain
from dreamloom.flows.chain.steps import Outcome, Step
from dreamloom.flows.chain.train_steps import ProjectTrainStep
from dreamloom.flows.commands.cli import run
from dreamloom.flows.plan.planned_steps import plan_steps
from dreamloom.scrape.collection import Status, Table
from dreamloom.scrape.collection.decisions import Decision, What
from dreamloom.train.evaluate.sample_files import list_samples, read_samples
from dreamloom.train.run.folder import read_summary
from tests.flows.conftest import Small

pytestmark = pytest.mark.slow

HOUSE = Path(__file__).parents[3]
EVERYTHING = {
    "ingest circles",
    "ingest squares",
    "choose",
    "caption circles",
    "caption squares",
    "balance",
    "train",
    "export",
}


def made(small: Any) -> set[str]:
    return {title for title, outcome in small.run().items() if outcome.changed}


def tables(workspace: Path) -> dict[Path, Any]:
    return {path.relative_to(workspace): pq.read_table(path).to_pylist() for path in workspace.rglob("*.parquet")}


def test_makes_a_training_folder_a_run_and_a_model(finished: Any) -> None:
    assert sorted(p.name for p in (finished.workspace / "dataset").iterdir()) == ["circles", "squares"]
    manifest = read_manifest(finished.workspace / "dataset.parquet").to_pylist()
    assert sorted(row["split"] for row in manifest) == ["heldout"] * 2 + ["train"] * 10
    assert all((finished.workspace / row["file"]).is_file() for row in manifest)
    summary = read_summary(chain.run_folder(finished.load()))
    assert summary is not None
    assert summary.finished
    assert summary.steps == 2
    assert (finished.workspace / "model" / "model_index.json").is_file()


def made_files(workspace: Path) -> dict[Path, int]:
    """When each file of a workspace was written; without locks, and the logs that each run adds to."""
    kept = (path for path in workspace.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in kept if path.parent != workspace / "logs"}


def test_running_again_does_nothing(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = made_files(finished.workspace)
    assert run(["run", str(finished.file)]) == 0
    assert "Nothing to do: everything is as project.yaml says." in capsys.readouterr().out
    assert made_files(finished.workspace) == before


def test_a_project_that_was_copied_or_moved_has_nothing_to_do(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied, moved = Small(tmp_path / "copied"), Small(tmp_path / "moved" / "here")
    shutil.copytree(finished.folder, copied.folder, copy_function=shutil.copyfile)  # with new times
    moved.folder.parent.mkdir()
    for project in (copied, moved):
        if project is moved:
            copied.folder.rename(moved.folder)
        before = made_files(project.workspace)
        for command in ("plan", "run"):
            assert run([command, str(project.file)]) == 0
            assert "Nothing to do: everything is as project.yaml says." in capsys.readouterr().out
        assert made_files(project.workspace) == before
    (only,) = (moved.workspace / "runs").glob("2*")
    assert run(["continue", str(only), "--max-train-steps", "3"]) == 0
    moved.change("sources", "circles", "author", to="me")
    assert run(["plan", str(moved.file)]) == 0
    assert "path:" not in capsys.readouterr().out, "which is no reason to make anything again"


def test_a_finished_run_reads_no_image_again(finished: Any) -> None:
    for image in (finished.workspace / "dataset" / "circles").glob("*.png"):
        image.unlink()
    assert not ProjectTrainStep(finished.workspace, finished.load().train_config()).run(silent).changed


def test_nothing_to_do_needs_neither_torch_nor_prefect(finished: Any) -> None:
    script = (
        "import sys; from dreamloom.flows.commands.cli import run; assert run(['run', sys.argv[1]]) == 0; "
        "print('loaded:', *{'torch', 'prefect', 'transformers', 'diffusers', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, finished.file], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize(
    ("keys", "value", "remade"),
    [
        (("caption", "min_length"), 6, {"caption circles", "caption squares", "balance"}),  # the captions are the same
        (
            ("sources", "circles", "edit"),
            {"replace": {"circle": "zorb"}},
            {"caption circles", "balance", "train", "export"},
        ),
        (("balance", "seed"), 1, {"balance", "train", "export"}),
        (("train", "seed"), 1, {"train", "export"}),
        (("export", "dtype"), "fp32", {"export"}),
        (("train", "log_every_n_steps"), 1, set()),
        (("name",), "another", {"export"}),  # whose files and card bear the name
        # copies go by first come, so choose looks at all; the squares that it keeps, and the dataset, are the same
        (("sources", "circles", "author"), "me", EVERYTHING - {"ingest squares", "caption squares", "train", "export"}),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_a_change_makes_again_what_hangs_on_it(
    finished: Any, keys: tuple[str, ...], value: Any, remade: set[str]
) -> None:
    finished.change(*keys, to=value)
    assert made(finished) == remade
    assert made(finished) == set()


def test_changing_back_finds_the_run_that_was_there(finished: Any) -> None:
    first = chain.run_folder(finished.load())
    finished.change("train", "seed", to=1)
    finished.run()
    second = chain.run_folder(finished.load())
    finished.change("train", "seed", to=0)
    assert made(finished) == {"export"}
    assert chain.run_folder(finished.load()) == first != second


def test_deleted_results_come_back(finished: Any) -> None:
    before = tables(finished.workspace)
    shutil.rmtree(finished.workspace / "dataset")
    shutil.rmtree(finished.workspace / "model")
    (finished.workspace / "collections" / "squares" / "records" / "00001.parquet").unlink()
    assert made(finished) == {"ingest squares", "balance", "export"}
    assert tables(finished.workspace) == before


def test_a_source_that_fails_does_not_stop_the_others(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    part = small.workspace / "collections" / "circles" / "records" / "00000.parquet"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"no parquet")
    assert run(["run", str(small.file)]) == 2
    assert capsys.readouterr().err.startswith(f"{part} can't be read")
    squares = small.load().collection("squares").read(Table.RECORDS)
    assert squares["status"].to_pylist() == [Status.OK] * 6
    assert not (small.workspace / "dataset").exists()


def test_the_captioning_model_is_gone_when_training_begins(small: Any) -> None:
    small.change("caption", to={"model": str(HOUSE / "demo" / "models" / "blip"), "keep_kinds": []})
    there: dict[str, bool] = {}

    def perform(step: Step) -> Outcome:
        if step.stage == "train":
            return Outcome("", changed=False, finished=False)
        outcome = step.run(silent)
        gc.collect()
        there[step.title] = any(type(thing).__name__ == "BlipTextLMHeadModel" for thing in gc.get_objects())
        return outcome

    chain.run(small.load(), perform)
    assert there["caption squares"]
    assert not there["balance"]


def test_the_second_of_two_runs_stops(finished: Any) -> None:
    script = "import sys; from dreamloom.flows.commands.cli import run; sys.exit(run(['run', sys.argv[1]]))"
    with lock(finished.workspace):
        done = subprocess.run(
            [sys.executable, "-c", script, finished.file], capture_output=True, text=True, timeout=100
        )
    assert done.returncode == 2
    assert "is in use by another run" in done.stderr


def test_scores_that_are_asked_for_no_more_are_not_chosen_by(finished: Any) -> None:
    scores = finished.workspace / "collections" / "circles" / "scores"
    shutil.copytree(finished.workspace / "collections" / "circles" / "records", scores)
    with pytest.raises(UserError, match="circles has scores, but the project has no score section"):
        finished.run()


def test_a_ratio_may_be_left_to_the_run(small: Any) -> None:
    """The folder has the ratio 1; the run decides what it shows of it, and the report says so."""
    small.change("balance", "ratio", to="auto")
    for name, value in {"limit_mean": 5.0, "evaluate_every_n_steps": 2, "max_train_steps": 8}.items():
        small.change("train", name, to=value)
    small.run()
    (run_folder,) = (small.workspace / "runs").glob("2*")
    points = json.loads((run_folder / "evaluation.json").read_text())["points"]
    summary = read_summary(run_folder)
    assert [point["images_seen"] for point in points[1:3]] == [2, 4], "it looks after half of the first stretch, too"
    assert [point["ratio"] for point in points[1:]] == [1, 1, 0.5, 0.5, 0.5]
    assert summary is not None and summary.shown == {"circles": 10, "squares": 6}  # 2 + 3 × 4/3 = 6
    assert not made(small)
    assert "is the one within the limits that learned most" in (small.workspace / "report" / "index.html").read_text()
    assert chain.is_trained(small.load())
    write_held_out(small.workspace / "heldout", {})
    assert not chain.is_trained(small.load()), "the ratio hangs on what held-out images show"


def test_a_new_prompt_is_drawn_without_training_again(finished: Any) -> None:
    """A finished run is drawn anew from the base and the checkpoints that it keeps; old columns stay."""
    (run,) = (finished.workspace / "runs").glob("2*")
    weights = {file: file.read_bytes() for file in run.glob("checkpoints/*/*.safetensors")}
    files = list_samples(run / "samples")
    before = {file: read_samples(file)[1][0].tobytes() for file in files}
    finished.change("train", "sample_prompts", to=["a blue square", "a red circle --d 3"])
    planned = {step.step.title: step.stale_parts for step in plan_steps(finished.load())}
    assert planned["train"] == ["samples"] and planned["export"] == []
    outcomes = finished.run()
    assert "drew 2 new prompts" in outcomes["train"].message and outcomes["train"].changed
    for file in (files[0], files[-1]):
        columns, images = read_samples(file)
        assert [column.heading for column in columns] == ["a blue square", "a red circle", "a red circle"]
        assert images[2].tobytes() == before[file] != images[1].tobytes(), "another seed is another image"
    assert {file: file.read_bytes() for file in weights} == weights
    assert not finished.run()["train"].changed


def test_a_run_that_goes_on_is_taken_by_run(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it has the bits of a run that is asked for at once; and the project's own model is no base."""
    finished.change("train", "max_train_steps", to=None)
    finished.change("train", "epochs", to=1)
    finished.change("train", "batch_size", to=1)  # every image a step, so an epoch ends with a whole one
    finished.run()
    before = sorted((finished.workspace / "runs").glob("2*"))
    assert run(["continue", str(before[-1]), "--epochs", "2"]) == 0
    out = capsys.readouterr().out
    assert "to the bits of a run that is asked for at once" in out and "write epochs: 2" in out
    finished.change("train", "epochs", to=2)
    outcomes = finished.run()
    assert not outcomes["train"].changed and outcomes["export"].changed
    assert len(set((finished.workspace / "runs").glob("2*")) - set(before)) == 1
    finished.change("train", "base", to="work/model")
    assert run(["plan", str(finished.file)]) == 2
    assert "is this project's own output" in capsys.readouterr().err


def test_a_renamed_source_is_found_again(small: Any) -> None:
    def made_before_training() -> set[str]:
        outcomes: dict[str, Outcome] = {}

        def perform(step: Step) -> Outcome:
            if step.stage == "train":
                return Outcome("", changed=False, finished=False)
            outcomes[step.title] = step.run(silent)
            return outcomes[step.title]

        chain.run(small.load(), perform)
        return {title for title, outcome in outcomes.items() if outcome.changed}

    made_before_training()
    (key,) = small.load().collection("squares").read(Table.RECORDS, columns=["key"]).slice(0, 1)["key"].to_pylist()
    small.load().collection("squares").add_decisions([Decision(key, "1", What.DROP)])
    content = yaml.safe_load(small.file.read_text())
    content["sources"]["boxes"] = content["sources"].pop("squares")
    small.file.write_text(yaml.safe_dump(content))
    assert made_before_training() == {"choose", "caption boxes", "balance"}
    assert sorted(p.name for p in (small.workspace / "collections").iterdir()) == ["boxes", "circles"]
    assert sorted(p.name for p in (small.workspace / "dataset").iterdir()) == ["boxes", "circles"]
    rows = {row["key"]: row for row in read_manifest(small.workspace / "dataset.parquet").to_pylist()}
    assert rows[key]["reason"] == "decided"
