"""Summaries for programs: `--json` prints one JSON document, with counts and bytes as numbers."""

import json
from pathlib import Path
from typing import Any

import pytest

from dreamloom.flows.commands.cli import run


def test_every_summary_can_be_had_as_json(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def said(*words: str) -> Any:
        code = run([*words, "--json"])
        out = capsys.readouterr().out
        assert code == 0 or words[0] == "doctor", out
        return json.loads(out)

    planned = said("plan", str(finished.file))
    assert planned["nothing_to_do"] and planned["project"] == "small"
    assert [step["parts_to_make"] for step in planned["steps"]] == [0] * len(planned["steps"])
    assert {source["source"]: source["count"] for source in planned["sources"]} == {"circles": 6, "squares": 6}
    assert planned["training"]["steps"] == 2 and planned["forecast"] is None
    assert planned["captions"][0]["cut"] == 0

    shown = said("show", str(finished.workspace))
    assert shown["funnel"]["circles"]["ingest"]["kept"] == 6
    assert Path(shown["contact_sheet"]).is_file()
    dataset = said("show", str(finished.workspace / "dataset"))
    assert {folder["folder"] for folder in dataset["folders"]} == {"circles", "squares"}
    name = next((finished.workspace / "dataset" / "circles").glob("*.png")).name
    assert "source" in {line["what"] for line in said("show", str(finished.workspace), "--image", name)}

    assert {finding["name"] for finding in said("doctor", str(finished.folder))} >= {"memory"}
    assert said("decisions", "list", str(finished.file)) == []
    assert {removal["what"] for removal in said("prune", str(finished.file))} <= {"keep", "drop optimizer", "remove"}
    (folder,) = (finished.workspace / "runs").glob("2*")
    compared = said("compare", str(folder), str(folder))
    assert compared["tables"]["Config"] == [] and compared["files"]


def test_a_plan_of_what_is_not_made_yet_is_json_with_what_is_not_known_as_null(
    small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(small.file), "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert not planned["nothing_to_do"] and planned["training"] is None
    assert planned["forecast"]["steps"] == 2
    assert isinstance(planned["forecast"]["images_per_epoch"], float)
    assert planned["steps"][-1]["parts_to_make"] is None
