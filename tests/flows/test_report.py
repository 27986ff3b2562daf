"""The page that a run ends with."""

import html
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image, ImageDraw

from dreamloom.flows.report import report_path, write_report
from dreamloom.train.evaluate.results import read_evaluation
from dreamloom.train.run.folder import read_summary


def images_of(page: Path) -> list[Path]:
    return [page.parent / unquote(place) for place in re.findall(r'<img src="([^"]+)"', page.read_text())]


def test_a_run_ends_with_a_report(finished: Any) -> None:
    page = report_path(finished.workspace)
    text = html.unescape(re.sub("<[^>]+>", " ", page.read_text()))
    assert "squares ground_truth" in " ".join(text.split())
    assert re.search(r"learned\s+-?\d+\.\d % \(unsure: [^)]+\)\s+\d+\s+forgotten\s+-?\d", text)
    found = images_of(page)
    assert {"learned_forgotten.png", "circles.jpg", "squares.jpg"} <= {file.name for file in found}
    assert all(file.is_file() for file in found)


def test_a_moved_workspace_still_shows_its_images(finished: Any, tmp_path: Path) -> None:
    moved = shutil.copytree(finished.workspace, tmp_path / "else where")
    shutil.rmtree(finished.workspace)
    assert all(file.is_file() for file in images_of(report_path(moved)))


@pytest.mark.slow
def test_it_is_written_again_only_where_something_was_made_or_it_is_gone(finished: Any) -> None:
    page = report_path(finished.workspace)
    page.write_text("mine")
    finished.run()
    assert page.read_text() == "mine"
    page.unlink()
    finished.run()
    assert page.is_file()
    finished.change("balance", "seed", to=5)
    page.write_text("old")
    finished.run()
    assert page.read_text() != "old"


def test_an_evaluation_that_is_no_longer_asked_for_is_not_shown(finished: Any) -> None:
    (finished.workspace / "report" / "evaluation.json").write_text('{"evaluation": {"learned": "of another run"}}')
    report_path(finished.workspace).unlink()
    finished.run()
    assert "learned" in report_path(finished.workspace).read_text()


def test_names_are_text_and_not_html(finished: Any) -> None:
    (run,) = (finished.workspace / "runs").glob("2*")
    write_report("<script>", finished.workspace, run, None)
    assert "<script>" not in report_path(finished.workspace).read_text()


def test_what_is_not_rehearsed_is_reported_apart(small: Any) -> None:
    """Witnesses are copies of no other image, are never trained on, and have a line of their own."""
    (small.folder / "stripes").mkdir()
    for number in range(6):
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).rectangle((0, 8 * number, 64, 8 * number + 9), fill="black")
        image.save(small.folder / "stripes" / f"a stripe_({number}).png")
    small.change("sources", "stripes", to={"kind": "folder", "role": "witness", "path": "stripes"})
    small.change("balance", "concepts", to=["square", "stripe"])
    outcomes = small.run()
    (run,) = (small.workspace / "runs").glob("2*")
    evaluation, summary = read_evaluation(run), read_summary(run)
    assert evaluation is not None and summary is not None
    assert evaluation.forgotten_unrehearsed is not None and evaluation.forgotten_unrehearsed.images == 6
    assert [(g.kind, g.grouping, g.name, g.images) for g in evaluation.groups] == [
        ("witness", "concept", "stripe", 6),
        ("witness", "source", "stripes", 6),
    ]
    assert summary.verdict == evaluation.verdict and summary.shown.keys() == {"circles", "squares"}
    assert outcomes["train"].message.splitlines()[1].strip().startswith(evaluation.verdict)
    text = " ".join(html.unescape(re.sub("<[^>]+>", " ", report_path(small.workspace).read_text())).split())
    assert "forgotten, not rehearsed" in text and "no source is a witness" not in text
    assert re.search(r"What was learned and forgotten (Nothing is s|S)urely forgotten", text)
    assert re.search(r"square 50\.00% 50\.00% 2 5 ", text)
