"""The images of a report: samples before and after, and images that were trained on, each with its history."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dreamloom.base import html
from dreamloom.base.tables.streamed_set import find_streamed_set
from dreamloom.curate.manifest import DROPPED, read_collections
from dreamloom.flows.report.contents import evenly_spaced
from dreamloom.train.evaluate.runs import best_samples, describe_run
from dreamloom.train.evaluate.sample_files import list_samples, pick_cells, read_columns

_IMAGES, _SIDE = 24, 192
"""Images of each source that are shown, and their longer side in pixels."""
_HISTORY = (
    *("source", "role", "split", "multiply", "caption", "caption_kind", "caption_model", "url", "path", "licence"),
    *("author", "aesthetic", "similarity", "rating", "crop", "focus", "labels", "width", "height", "key"),
)
"""Columns of the manifest that tell an image's history."""


def before_and_after(run: Path) -> list[str]:
    """Renders each prompt with what the base drew and what the best checkpoint did, in the same noise."""
    files = list_samples(run / "samples")
    after = best_samples(describe_run(run)) if files else None
    if after is None or after == files[0]:
        return []
    columns = read_columns(after)
    figures = [
        f'<figure><div class="pair">{html.embedded(old, "before")}{html.embedded(new, "after")}</div>'
        f"<figcaption>{html.text(column.heading or 'a sample')}</figcaption></figure>"
        for column, old, new in zip(columns, pick_cells(files[0], columns), pick_cells(after, columns), strict=True)
        if old is not None and new is not None
    ]
    note = f"<p>Left: the base. Right: after {int(after.stem):,} images. The noise is the same.</p>"
    return [note, f'<div class="images">{"".join(figures)}</div>'] if figures else []


def image_sections(workspace: Path, manifest: pa.Table) -> list[str]:
    """Renders some images of each source that are trained on or held out; each links to its history below it."""
    parts = []
    used = manifest.filter(pc.not_equal(manifest["split"], DROPPED))
    collections = read_collections(workspace) if find_streamed_set(workspace / "dataset") else {}
    for source in used["source"].unique().to_pylist():
        rows = used.filter(pc.equal(used["source"], source))
        shown = rows.take(evenly_spaced(range(len(rows)), _IMAGES)).to_pylist()
        files = [
            collections[source].image(row["replaced"] or row["image"]) if collections else workspace / row["file"]
            for row in shown
        ]
        figures = "".join(map(_figure, files, shown))
        parts.append(f'<h3>{html.text(source)}: {len(rows):,} images</h3><div class="images">{figures}</div>')
    return parts


def _figure(image: Path | bytes, row: Mapping[str, Any]) -> str:
    caption = row["caption"] or "no caption"
    row = {**row, "path": Path(row["path"] or "").name}  # where it lies on this disk is nobody else's business
    history = [{"what": name, "": _text(row[name])} for name in _HISTORY if row[name] not in (None, "", [])]
    mark = f"history-{html.text(row['key'])}"
    picture = html.embedded_file(image, caption, _SIDE)
    details = f'<details id="{mark}"><summary>{html.text(caption)}</summary>{html.table(history)}</details>'
    return f'<figure><a href="#{mark}">{picture}</a>{details}</figure>'


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)
