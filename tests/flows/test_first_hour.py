"""A stranger's mistakes are told in one sentence, before anything is made; bench.first_hour makes them in a clone."""

import re
from typing import Any

import pytest

from bench.first_hour import AFTER_THE_RUN, BEFORE_THE_RUN, Mistake
from dreamloom.flows.commands.cli import run

pytestmark = pytest.mark.slow


def check(mistake: Mistake, project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kept = project.file.read_text()
    project.file.write_text(mistake.spoil(kept))
    before = {path for path in project.folder.rglob("*") if path.name != ".lock"}
    capsys.readouterr()
    code = run(mistake.words(project.folder, project.folder / "circles", "circles"))
    said = capsys.readouterr().err
    assert code == 2 and re.search(mistake.says, said) and len(said.splitlines()) == 1, f"{mistake.what}: {said}"
    assert {path for path in project.folder.rglob("*") if path.name != ".lock"} == before
    project.file.write_text(kept)


def test_mistakes_before_the_first_run(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for mistake in BEFORE_THE_RUN:
        check(mistake, small, capsys)


def test_mistakes_after_it(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for mistake in AFTER_THE_RUN:
        check(mistake, finished, capsys)
