"""run --only, --until, --source: some stages of a project, with the project's own config."""

from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.flows.chain.selection import Selection, select
from dreamloom.flows.commands.cli import run
from dreamloom.scrape.collection import Table


def titles(small: Any, **selection: Any) -> list[str]:
    chosen = select(small.load(), Selection(**selection))
    return [step.title for level in chosen for branch in level.branches for step in branch]


def test_a_stage_of_a_source_runs_alone_with_the_project_s_config(
    small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", str(small.file), "--only", "ingest", "--source", "squares"]) == 0
    assert capsys.readouterr().out.startswith("ingest   squares             6 in         6 kept;")
    project = small.load()
    assert project.collection("squares").parts(Table.RECORDS) == ["00000", "00001"], "part_rows: 3 is in project.yaml"
    assert not project.collection("circles").root.exists()


def test_until_ends_the_chain_there_and_the_rest_finds_it_done(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(small.file), "--until", "choose"]) == 0
    assert "choose" in capsys.readouterr().out
    assert not (small.workspace / "dataset").exists()
    assert run(["run", str(small.file), "--until", "caption"]) == 0
    out = capsys.readouterr().out
    assert out.count("there already") == 3
    assert "caption  circles" in out


def test_what_is_selected(small: Any) -> None:
    assert titles(small, only=["caption"], sources=["squares"]) == ["caption squares"]
    assert titles(small, only=["balance", "train"]) == ["balance", "train"]
    assert titles(small, until="scrape") == ["ingest circles", "ingest squares"]
    assert titles(small, until="caption", only=["choose", "caption"]) == [
        "choose",
        "caption circles",
        "caption squares",
    ]
    assert titles(small)[-1] == "export"


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ({"only": ["score"]}, "small has no stage score; valid: ingest, choose, caption, balance, train, export"),
        ({"only": ["scrape"], "sources": ["squares"]}, "small has no stage scrape; valid: ingest, caption"),
        ({"only": ["choose"], "sources": ["squares"]}, "choose takes all sources at once; leave the source out."),
        ({"until": "caption", "sources": ["squares"]}, "choose takes all sources at once; leave the source out."),
        ({"only": ["ingest"], "sources": ["squars"]}, "small has no source squars; did you mean squares?"),
        (
            {"only": ["train"], "until": "choose"},
            "train comes after choose; name a later stage for until, or leave it out.",
        ),
        ({"until": "filter"}, "small begins after filter; name a later stage."),
        ({"sources": ["squares"]}, "A source alone has no chain; name its stages, too: only or until."),
    ],
)
def test_what_can_t_be_selected_says_why(small: Any, selection: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        titles(small, **selection)
    assert str(refused.value) == sentence
