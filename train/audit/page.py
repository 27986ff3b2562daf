"""Writes the page of an audit: what changed most, the means that hide it, and pictures side by side."""

from collections.abc import Sequence
from pathlib import Path

from dreamloom.base import html
from dreamloom.base.files.atomic import commit_text
from dreamloom.train.audit.results import Audit, PicturePair

SIDE = 320
"""Pixels of a picture's longer side on the page."""
MOST_PAIRS = 100
"""Most pairs on the page; the others lie in its folder."""


def write_page(file: Path, audit: Audit) -> None:
    """Writes the page with the pictures embedded, so that it may be moved."""
    first = f"<p><strong>{html.text(audit.verdict[:1].upper() + audit.verdict[1:])}.</strong></p>"
    models = f"<p>{html.text(audit.model)}, compared with {html.text(audit.base)}.</p>"
    deeper = [
        f"<li>{html.text(what)}: about {html.text(minutes(seconds))} more</li>"
        for what, seconds in audit.deeper.items()
    ]
    sections = {
        "What changed": [first, models],
        "Zero-shot accuracy": [html.table(audit.class_rows())],
        "Pictures, the most changed first": _pairs(file.parent, audit.pictures[:MOST_PAIRS]),
        "Drift by prompt": [html.table(audit.drift_rows())],
        "Means, which hide what single concepts lost": [html.table(audit.mean_rows())],
        "What a deeper look would cost": [f"<ul>{''.join(deeper)}</ul>"] if deeper else [],
        "Images that could not be classified": [f"<p>{html.text(problem)}</p>" for problem in audit.problems],
    }
    commit_text(file, html.page("Audit", sections))


def minutes(seconds: float) -> str:
    """Returns a duration in whole minutes, or in hours where it is long."""
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{max(1, round(seconds / 60))} min"


def _pairs(folder: Path, pairs: Sequence[PicturePair]) -> list[str]:
    figures = []
    for pair in pairs:
        numbers = f"color drift {pair.color_drift:.1f}"
        if pair.clip_distance is not None:
            numbers += f", CLIP distance {pair.clip_distance:.3f}, "
            numbers += f"CLIP score {pair.clip_score_base:.3f} to {pair.clip_score_model:.3f}"
        shown = [(folder / pair.base, "base"), (folder / pair.model, "model")]
        figures.append(f"<p>{html.text(pair.prompt)}<br><small>{numbers}</small></p>{html.thumbnails(shown, SIDE)}")
    return figures
