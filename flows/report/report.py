"""Writes report/index.html: what was learned and forgotten, what was trained on, and where other images went."""

import io
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from dreamloom.base import html
from dreamloom.base.files.atomic import commit_text
from dreamloom.base.tables.held_out import read_held_out
from dreamloom.curate.manifest import DROPPED, TRAIN, manifest_path, read_manifest
from dreamloom.curate.source import Role
from dreamloom.flows.project.run_folders import run_charts
from dreamloom.flows.project.workspace import report_path
from dreamloom.flows.report.changes import read_changes
from dreamloom.flows.report.report_images import before_and_after, image_sections
from dreamloom.flows.terminal.tables import balance_rows, funnel, funnel_rows
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.measure import Evaluation, GroupMeasure
from dreamloom.train.evaluate.results import read_evaluation
from dreamloom.train.run.folder import read_config, read_summary

Rows = Sequence[Mapping[str, Any]]

_SCORES = {"aesthetic": "aesthetic score", "similarity": "similarity of image and text"}
"""Column of the manifest → the title of its chart."""
_WHAT = {"training": "learned", "ground_truth": "forgotten, rehearsed", "witness": "forgotten, not rehearsed"}
"""Kind of held-out images → what they measure."""
_USED, _LEFT_OUT, _CUT = "#2a7f62", "#c9c9c4", "#a04040"
_BINS = 30
_CHART_SIDE = 1600
"""Pixels; a sheet of many large samples is scaled down to so much."""


def write_report(name: str, workspace: Path, run: Path, evaluation: Path | None) -> None:
    """Writes the report of a workspace that has a dataset, with its images beside it.

    Args:
        name: the project's name.
        workspace: the project's workspace.
        run: the folder of the training run.
        evaluation: the file of the evaluate stage; None: the best evaluation of the training run is shown.
    """
    manifest = read_manifest(manifest_path(workspace))
    measured = read_evaluation(run if evaluation is None else evaluation, read_held_out(workspace / "heldout"))
    sources = manifest["source"].unique().to_pylist()
    sections = {
        "In a sentence": [_verdict(measured)],
        "Before and after": before_and_after(run),
        "What was learned and forgotten": [*_measures(measured), *_end(run), *_figures(run_charts(run))],
        "By source and concept": [html.table(_groups(measured))],
        "Since the last run": [html.table(rows) for rows in read_changes(workspace).values()],
        "What is trained on": [html.table(balance_rows(workspace))],
        "What was shown": [html.table(_shown(run)), html.table(_shown_by_concept(run, manifest))],
        "Settings": [html.table(settings_rows(run)), _link_to(run)],
        "Where the images went": [html.table(funnel_rows(funnel(workspace, sources)))],
        "Scores": _histograms(manifest),
        "Licences": [html.table(_licences(manifest))],
        "Images, each with its history": image_sections(workspace, manifest),
    }
    commit_text(report_path(workspace), html.page(name, sections))


# Sections


def _verdict(measured: Evaluation | None) -> str:
    """Says in one sentence what was learned and what was forgotten."""
    if measured is None:
        return ""
    texts = []
    if learned := measured.learned:
        sure = None if learned.error is None else abs(learned.change) > 2 * learned.error
        mark = html.MARKS[learned.change > 0 if sure else None]
        images = "1 image" if learned.images == 1 else f"{learned.images} images"
        texts.append(f"{mark} learned {html.text(learned)} of the base model's loss, on {images}")
    if measured.verdict:
        mark = html.MARKS[False if measured.worst else True if measured.groups else None]
        texts.append(f"{mark} {html.text(measured.verdict)}")
    elif not measured.forgotten:
        texts.append(f"{html.MARKS[None]} what was forgotten is not measured: no ground truth is held out")
    return f'<p class="verdict">{"; ".join(texts)}.</p>' if texts else ""


def _measures(measured: Evaluation | None) -> list[str]:
    """The means, of which a concept may be far off."""
    if measured is None:
        return []
    rows = [
        {"measure": name, "of the base model's loss": str(measure), "images": measure.images}
        for name, measure in measured.measures().items()
    ]
    unknown = "<p>What is not rehearsed is not measured: no source is a witness.</p>"
    return [html.table(rows), "" if measured.forgotten_unrehearsed else unknown]


def _end(run: Path) -> list[str]:
    """Says why a run ended early, and whether its checkpoint is within the limits."""
    summary = read_summary(run)
    texts = (summary.ended, summary.limits) if summary else ()
    return [f"<p>{html.text(text[:1].upper() + text[1:])}.</p>" for text in texts if text]


def _groups(measured: Evaluation | None) -> Rows:
    """Returns a row for each source and concept that was measured: what was forgotten first, the worst first."""

    def place(group: GroupMeasure) -> tuple[bool, bool, float]:
        return group.kind == "training", not group.sure, -group.shrunk

    return [
        {
            "what": _WHAT[group.kind],
            "": group.grouping,
            "name": group.name,
            "change": f"{100 * group.change:.1f} %",
            "interval": f"{100 * group.low:.1f} to {100 * group.high:.1f} %",
            "shrunk": f"{100 * group.shrunk:.1f} %",
            "sure": _mark(group),
            "images": group.images,
        }
        for group in sorted(measured.groups if measured else (), key=place)
    ]


def _mark(group: GroupMeasure) -> str:
    """Says whether a change is sure, and whether it is for the better."""
    if not group.sure:
        return ""
    return "✓ better" if (group.low > 0) == (group.kind == "training") else "✗ worse"


def _shown(run: Path) -> Rows:
    """Returns, for each folder of a finished run, the share of the images that was asked for, and what was shown."""
    summary = read_summary(run)
    if summary is None:
        return []
    return [
        {
            "folder": name,
            "asked": f"{summary.asked[name]:.2%}",
            "shown": f"{count / summary.images_seen:.2%}",
            "images": count,
        }
        for name, count in summary.shown.items()
    ]


def _shown_by_concept(run: Path, manifest: pa.Table) -> Rows:
    """Returns, for each concept, the share of the images asked for that show it, and how many were shown.

    All images of a folder are shown equally often but for one, so a folder's images are divided in proportion.
    """
    summary = read_summary(run)
    asked: defaultdict[str, float] = defaultdict(float)
    shown: defaultdict[str, float] = defaultdict(float)
    rows = manifest.filter(pc.equal(manifest["split"], TRAIN)).select(["source", "concepts"]).to_pylist()
    if summary is None:
        return []
    images, trained = Counter(row["source"] for row in rows), Counter[str]()
    for row in rows:
        source = row["source"]
        for concept in row["concepts"] or ():
            trained[concept] += 1
            asked[concept] += summary.asked.get(source, 0) / images[source]
            shown[concept] += summary.shown.get(source, 0) / images[source]
    return [
        {
            "concept": concept,
            "asked": f"{asked[concept]:.2%}",
            "shown": f"{shown[concept] / summary.images_seen:.2%}",
            "images shown": round(shown[concept]),
            "images": trained[concept],
        }
        for concept in sorted(shown, key=lambda concept: (-shown[concept], concept))
    ]


def settings_rows(run: Path) -> Rows:
    """Returns the settings of a run that are no defaults, and some that always count."""
    config = read_config(run)
    if config is None:
        return []
    values = config.model_dump(mode="json")
    always = ("base", "learning_rate", "batch_size", "resolution", "seed")
    defaults = TrainConfig().model_dump(mode="json")
    names = [*always, *(name for name, value in values.items() if name not in always and value != defaults[name])]
    return [{"setting": name, "value": _shareable(values[name])} for name in names]


def _shareable(value: Any) -> str:
    """Returns a setting as text; of a path on this disk, which is nobody else's business, the name alone."""
    if isinstance(value, list):
        return ", ".join(map(_shareable, value))
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else str(value)


def _licences(manifest: pa.Table) -> Rows:
    used = manifest.filter(pc.not_equal(manifest["split"], DROPPED)).select(["source", "licence"]).to_pylist()
    counts = Counter((row["source"], row["licence"]) for row in used)
    return [
        {"source": source, "licence": licence or "not known", "images": count}
        for (source, licence), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1]))
    ]


def _histograms(manifest: pa.Table) -> list[str]:
    return [f"<figure>{html.embedded(chart, title)}</figure>" for title, chart in score_charts(manifest, {}).items()]


def score_charts(manifest: pa.Table, cuts: Mapping[str, float | None]) -> dict[str, Image.Image]:
    """Draws a chart of each score: a row per source, with the images that are used before those that are left out.

    Args:
        manifest: rows of the manifest.
        cuts: score → the least that ground truth must have, drawn as a line.

    Returns:
        Title → chart.
    """
    charts = {}
    for score, title in _SCORES.items():
        scored = manifest.filter(pc.is_valid(manifest[score]))
        if len(scored):
            charts[title] = _draw_histogram(scored, score, title, cuts.get(score))
    return charts


def _draw_histogram(rows: pa.Table, score: str, title: str, cut: float | None) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sources, bins = rows["source"].unique().to_pylist(), np.histogram_bin_edges(rows[score].to_numpy(), _BINS)
    figure = Figure(figsize=(7, 0.6 + 1.1 * len(sources)), dpi=120, layout="constrained")
    all_axes = figure.subplots(len(sources), sharex=True, squeeze=False)[:, 0]
    for axes, source in zip(all_axes, sources, strict=True):
        source_rows = rows.filter(pc.equal(rows["source"], source))
        dropped = pc.equal(source_rows["split"], DROPPED)
        used, left_out = (source_rows.filter(mask)[score].to_numpy() for mask in (pc.invert(dropped), dropped))
        axes.hist([used, left_out], bins, stacked=True, color=[_USED, _LEFT_OUT], label=["used", "left out"])
        if cut is not None and Role.GROUND_TRUTH in source_rows["role"].to_pylist():
            axes.axvline(cut, color=_CUT, linewidth=1, label=f"least: {cut:g}")
        axes.set_title(source, loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    known = {
        label: handle for axes in all_axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    all_axes[0].legend(known.values(), known.keys(), frameon=False, fontsize=8)
    all_axes[-1].set_xlabel(title)
    drawn = io.BytesIO()
    FigureCanvasAgg(figure).print_png(drawn)
    return Image.open(drawn)


# HTML


def _figures(files: Mapping[str, Path]) -> list[str]:
    """The images as HTML, each below its name."""
    return [
        f"<figure><figcaption>{html.text(name)}</figcaption>{html.embedded_file(file, name, _CHART_SIDE)}</figure>"
        for name, file in files.items()
    ]


def _link_to(run: Path) -> str:
    """A link to the folder of the run, which stands as long as the workspace is whole."""
    return f'<p>All of the run: <a href="../runs/{quote(run.name)}/">runs/{html.text(run.name)}</a></p>'
