"""The page that sums up a run, and what it left out: artifacts that say what came of it, and where to look."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dreamloom.curate.manifest import DROPPED, manifest_path, read_manifest
from dreamloom.flows.chain.chain import run_folder
from dreamloom.flows.project.project import Project
from dreamloom.flows.project.workspace import report_path
from dreamloom.flows.report.contents import SHEET_IMAGES, CaptionedImages, evenly_spaced
from dreamloom.flows.report.report import score_charts
from dreamloom.flows.server import artifacts
from dreamloom.train.evaluate.runs import RunInfo, find_runs
from dreamloom.train.export.card import CARD

Rows = Sequence[Mapping[str, Any]]

_COLUMNS = ["source", "role", "split", "reason", "caption", "image", "aesthetic", "similarity"]
"""Columns of the manifest that images and charts are made of."""
_CELL_WIDTH = 80
"""Letters of a line in a table."""
RUNS_SHOWN = 20
"""Training runs on the page, the newest."""


def publish_page(project: Project, steps: Rows, headline: str) -> None:
    """Publishes the page: what came of the run and of each step, where results lie, and all of the project's runs.

    Args:
        project: the project.
        steps: a row for each step that was run.
        headline: what came of the run, or the sentence of its error.
    """

    def page() -> str:
        runs = [_run_row(run) for run in find_runs(project.workspace)[-RUNS_SHOWN:]]
        parts = (_table("Steps", steps), _places(project), _table("Training runs", runs))
        return "\n\n".join([f"**{' '.join(headline.split())}**", *filter(None, parts)])

    artifacts.publish_text("summary", page, "What came of the run")


def publish_images(project: Project) -> None:
    """Publishes images that were left out, by reason, and charts of the scores, with the cut between."""
    manifest = read_manifest(manifest_path(project.workspace), _COLUMNS)
    if left_out := left_out_images(project, manifest):
        artifacts.publish_sheet("left out images", left_out, "Some images that were left out, and why")
    cuts = {"aesthetic": project.choose.min_aesthetic, "similarity": project.choose.min_similarity}
    artifacts.publish_images("scores", lambda: score_charts(manifest, cuts))


def left_out_images(project: Project, manifest: pa.Table) -> CaptionedImages:
    """Returns some images that are there and are not used, about equally many of each reason, below it."""
    left_out = pc.and_(pc.equal(manifest["split"], DROPPED), pc.is_valid(manifest["image"]))
    left_out = pc.and_(left_out, pc.is_in(manifest["source"], pa.array(list(project.sources), pa.string())))
    rows = manifest.filter(left_out).select(["source", "reason", "caption", "image"])
    reasons = sorted(pc.unique(rows["reason"]).to_pylist())
    shown: CaptionedImages = []
    for reason in reasons:
        places = pc.indices_nonzero(pc.equal(rows["reason"], reason))
        some = evenly_spaced(range(len(places)), max(1, SHEET_IMAGES // len(reasons)))
        for row in rows.take(places.take(some)).to_pylist():
            image = project.collection(row["source"]).image(row["image"])
            shown.append((image, f"{reason}: {row['caption'] or row['source']}"))
    return shown


def _places(project: Project) -> str:
    model = project.workspace / "model"
    places = {"report": report_path(project.workspace), "model": model, "model card": model / CARD}
    if manifest_path(project.workspace).exists():
        places["run"] = run_folder(project)
    lines = [f"- {name}: `{path}`" for name, path in places.items() if path.exists()]
    return "\n".join(["### Where to look\n", *lines]) if lines else ""


def _run_row(run: RunInfo) -> dict[str, Any]:
    row = {"run": run.name, "began": run.began.replace("T", " ")[:16], "steps": run.steps}
    names = ("learned", "forgotten", "forgotten, not rehearsed")
    return row | {name: str(run.measures.get(name, "")) for name in names}


def _table(title: str, rows: Rows) -> str:
    """Rows as a table of markdown below its title; nothing without rows."""
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    """The text of a cell, in lines that are not cut off: the dashboard breaks none itself."""
    lines = (part for line in str(value).splitlines() for part in textwrap.wrap(line, _CELL_WIDTH))
    return "<br>".join(lines).replace("|", "\\|")
