"""The page that a run ends with."""

import html
import re
from typing import Any

import pytest
from PIL import Image, ImageDraw

from dreamloom.flows.project.run_folders import run_charts
from dreamloom.flows.project.workspace import report_path
from dreamloom.flows.report.report import write_report
from dreamloom.train.evaluate.results import read_evaluation
from dreamloom.train.evaluate.sample_files import list_samples
from dreamloom.train.run.folder import read_summary
from tests.flows.conftest import HOUSE


def test_charts_of_a_run_show_its_samples_from_the_first_to_the_last_below_their_prompts(finished: Any) -> None:
    (run,) = (finished.workspace / "runs").glob("2*")
    samples = list_samples(run / "samples")
    with Image.open(run_charts(run)["samples"]) as chart, Image.open(samples[-1]) as newest:
        assert len(samples) > 1 and chart.height > len(samples) * newest.height, "a row for each, and the headings"


def test_a_run_ends_with_a_report_that_needs_no_other_file(finished: Any) -> None:
    """One sentence, samples before and after, settings, and images with their histories; for a phone, and at night."""
    page = report_path(finished.workspace).read_text()
    text = " ".join(html.unescape(re.sub("<[^>]+>", " ", page)).split())
    assert "squares ground_truth" in text
    assert re.search(r"learned -?\d+\.\d % \(unsure: [^)]+\) \d+ forgotten -?\d", text)
    assert re.search(r"In a sentence [✓✗≈] learned .* on \d+ images?; ≈ what was forgotten worst is not known", text)
    assert "Before and after Left: the base. Right: after 4 images. The noise is the same. a red circle" in text
    assert "learning_rate" in text and "a blue circle" in text
    assert str(finished.folder) not in page and str(HOUSE) not in page, "no path of this disk is passed on"
    sources = re.findall(r'<img [^>]*src="([^"]{10})', page)
    assert len(sources) > 12 and set(sources) == {"data:image"}
    links = re.findall(r'href="#([^"]+)"', page)
    assert len(links) == 12 and all(f'id="{link}"' in page for link in links), "each image leads to its history"
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    assert page.count("<table>") == page.count('<div class="scroll"><table>'), "no table is wider than the page"
    (run,) = re.findall(r'href="\.\./(runs/[^"]+)/"', page)
    assert (finished.workspace / run).is_dir()


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
    assert re.search(r"surely forgotten.*What was learned and forgotten", text), "the verdict is first"
    assert re.search(r"square 50\.00% 50\.00% 2 5 ", text)
