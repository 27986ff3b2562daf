"""clean: what nothing hangs on goes, and nothing else; --dry-run removes nothing."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from dreamloom.flows.commands.cli import run
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.library import open_library
from dreamloom.scrape.collection.shards import push_collection
from dreamloom.scrape.collection.store_cache import tables_of
from tests.flows.conftest import make_small


def age(path: Path, days: float) -> None:
    """Makes a file, or a folder with all in it, so many days old."""
    for each in [path, *path.rglob("*")]:
        os.utime(each, (time.time() - days * 86_400,) * 2)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "entrance")}


def found(small: Any, capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, str]:
    """Path below the workspace → why it goes."""
    assert run(["clean", str(small.file), "--json", *flags]) == 0
    rows = json.loads(capsys.readouterr().out)
    return {str(Path(row["path"]).relative_to(small.workspace)): row["why"] for row in rows}


def make_project(small: Any) -> None:
    """A workspace after `run --until ingest`, with rubbish in it."""
    assert run(["run", str(small.file), "--until", "ingest"]) == 0
    collections = small.workspace / "collections"
    for name, days in (("renamed", 40), ("lately", 5)):
        shutil.copytree(collections / "squares", collections / name)
        age(collections / name, days)
    for folder, name in ((collections / "squares" / "records", ".tmp-old"), (small.workspace, ".tmp-new")):
        (folder / name).write_text("half")
    age(collections / "squares" / "records" / ".tmp-old", 1)
    (small.workspace / "logs" / "2020-01-01_00-00-00.log").write_text("old")
    age(small.workspace / "logs" / "2020-01-01_00-00-00.log", 40)
    (small.workspace / "mine.txt").write_text("the user's")
    age(small.workspace / "mine.txt", 400)


def test_what_nothing_hangs_on_goes_and_a_dry_run_removes_nothing(
    small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make_project(small)
    capsys.readouterr()
    before = files(small.workspace)
    wanted = {
        "collections/renamed": "collection of a source that project.yaml does not name",
        "collections/squares/records/.tmp-old": "left by a process that was killed",
        "logs/2020-01-01_00-00-00.log": "an old log",
    }
    assert found(small, capsys, "--dry-run") == wanted
    assert files(small.workspace) == before
    assert found(small, capsys) == wanted
    gone = {path for path in before if any(path.is_relative_to(small.workspace / name) for name in wanted)}
    assert files(small.workspace) == before - gone
    assert found(small, capsys) == {}


def test_cached_tables_of_collections_at_addresses_go_when_nothing_used_them_lately(
    small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    make_project(small)
    names = [f"memory://clean/{name}" for name in ("unused", "lately", "source", "own/collections/squares")]
    for name in names:
        push_collection(Collection(small.workspace / "collections" / "squares"), name)
        open_library(Path(name))
        age(tables_of(name), 40)
    open_library(Path(names[1]))
    small.change("store", to="memory://clean/own")
    small.change("sources", "taken", to={"kind": "collection", "role": "training", "path": names[2]})
    capsys.readouterr()
    tables = [tables_of(name) for name in names]
    for flags in (["--dry-run"], []):
        assert run(["clean", str(small.file), "--json", *flags]) == 0
        rows = json.loads(capsys.readouterr().out)
        inside = [row for row in rows if Path(row["path"]).is_relative_to(tmp_path / "cache")]
        assert [Path(row["path"]) for row in inside] == [tables[0]] and inside[0]["bytes"] > 0
        assert [folder.exists() for folder in tables] == [bool(flags), True, True, True]
    assert len(open_library(Path(names[0])).parts(Table.RECORDS)) > 0, "fetched again"


def test_retention_days_are_those_of_project_yaml(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make_project(small)
    capsys.readouterr()
    small.change("retention", to={"days": 4})
    assert "collections/lately" in found(small, capsys, "--dry-run")
    small.change("retention", to={"days": 60})
    assert found(small, capsys, "--dry-run").keys() == {"collections/squares/records/.tmp-old"}


def test_a_collection_that_another_project_uses_stays(
    small: Any, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    make_project(small)
    other = make_small(tmp_path_factory.mktemp("other") / "project")
    other.change("sources", "squares", to={"kind": "collection", "role": "ground_truth"})
    other.change("sources", "squares", "path", to=str(small.workspace / "collections" / "renamed"))
    assert run(["run", str(other.file), "--until", "ingest"]) == 0
    capsys.readouterr()
    assert "collections/renamed" not in found(small, capsys)
    assert (small.workspace / "collections" / "renamed" / "records").is_dir()


@pytest.mark.slow
def test_nothing_goes_that_a_run_hangs_on(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    finished.change("sources", "rounds", to={"kind": "folder", "role": "training", "path": "circles"})
    finished.change("sources", "circles", to=None)
    age(finished.workspace / "collections" / "circles", 90)
    age(finished.workspace / "runs" / ".latents", 90)
    assert found(finished, capsys, "--dry-run").keys() == {"runs/.latents"}, "the run was trained on circles"
