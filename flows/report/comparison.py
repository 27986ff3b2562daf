"""Two runs side by side: tables, an image of their samples, and a page. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dreamloom.base import html
from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_text
from dreamloom.flows.terminal.terminal import size
from dreamloom.train.evaluate.runs import RunInfo, best_samples, config_changes, data_changes, image_changes
from dreamloom.train.evaluate.sample_files import Cells, image_grid, list_samples, read_samples, save_sheet

Rows = Sequence[Mapping[str, Any]]

_IMAGES_SHOWN = 40
"""Changed images that a comparison names."""


def comparison_tables(a: RunInfo, b: RunInfo) -> dict[str, Rows]:
    """Returns the tables of a comparison, by title; an empty one where the runs do not differ."""
    first, second = _names(a, b)
    changes, images = config_changes(a, b), image_changes(a, b)
    more = [{"change": f"and {len(images) - _IMAGES_SHOWN:,} more", "image": "", "before": "", "caption": ""}]
    measures = [
        {"measure": label, first: _value(a.measures.get(label)), second: _value(b.measures.get(label))}
        for label in {**a.measures, **b.measures}
    ]
    tables: dict[str, Rows] = {
        "Runs": [{"": label, first: _about(a)[label], second: _about(b)[label]} for label in _about(a)],
        "Config": [{"key": name, first: _shown(old), second: _shown(new)} for name, (old, new) in changes.items()],
        "Images": [{"folder and difference": text} for text in data_changes(a, b)],
        "Images that changed": images[:_IMAGES_SHOWN] + (more if len(images) > _IMAGES_SHOWN else []),
        "Learned and forgotten": measures,
        "By source and concept": _groups(a, b),
    }
    if measures and a.held_out != b.held_out:
        shared = f"{len(a.held_out & b.held_out):,} of {len(a.held_out):,} and {len(b.held_out):,}"
        note = f"measured on other held-out images ({shared} in common): compare with care"
        tables["Learned and forgotten"] = [*measures, {"measure": note, first: "", second: ""}]
    return {title: rows for title, rows in tables.items() if rows or title in ("Config", "Images")}


def sample_grid(a: RunInfo, b: RunInfo) -> Image.Image | None:
    """Draws the samples of both runs below those of the base, for the prompts that both drew; None without any."""
    files = {name: best_samples(run) for name, run in zip(_names(a, b), (a, b), strict=True)}
    if any(file is None for file in files.values()):
        return None
    drawn = {name: _by_heading(file) for name, file in files.items() if file is not None}
    shared = [heading for heading in next(iter(drawn.values())) if all(heading in images for images in drawn.values())]
    before = _by_heading(list_samples(a.folder / "samples")[0])
    rows: dict[str, Cells] = {"before": [before.get(heading) for heading in shared]}
    rows |= {name: [images[heading] for heading in shared] for name, images in drawn.items()}
    return image_grid(shared, rows) if shared else None


def write_comparison(
    a: RunInfo, b: RunInfo, tables: Mapping[str, Rows], samples: Image.Image | None, target: Path
) -> list[Path]:
    """Writes the samples as TARGET.png, if there are some, and all of the comparison as TARGET.html.

    Args:
        a: a run.
        b: the other one.
        tables: of `comparison_tables`.
        samples: of `sample_grid`.
        target: the files' name, without the ending.

    Returns:
        The files.

    Raises:
        UserError: such a file exists and is none of ours.
    """
    page = target.with_name(f"{target.name}.html")
    if page.exists() and html.GENERATOR not in page.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{page} exists and is no page of this command; name another with --output.")
    files = []
    sections = {title: [html.table(rows) or "<p>no difference</p>"] for title, rows in tables.items()}
    if samples is not None:
        files.append(target.with_name(f"{target.name}.png"))
        save_sheet(samples, files[-1])
        sections["Samples"] = [html.embedded(samples, "samples of both runs")]
    files.append(page)
    commit_text(files[-1], html.page(" and ".join(_names(a, b)), sections))
    return files


def _names(a: RunInfo, b: RunInfo) -> tuple[str, str]:
    """Returns the names of two runs; with that of the workspace, where they are called the same."""
    if a.name != b.name:
        return a.name, b.name
    first, second = (str(run.folder) for run in (a, b))
    return (first, second) if first != second else (f"{first} (A)", f"{second} (B)")


def _about(run: RunInfo) -> dict[str, str]:
    return {
        "began": run.began.replace("T", " "),
        "finished": "yes" if run.summary else "no",
        "steps": f"{run.steps:,}",
        "images seen": f"{run.images_seen:,}",
        "best after": f"{run.best['images_seen']:,} images" if run.best else "not measured",
        "verdict": run.best.get("verdict", ""),
        "size": size(run.bytes),
    }


def _groups(a: RunInfo, b: RunInfo) -> Rows:
    (first, old), (second, new) = zip(_names(a, b), (a.groups, b.groups), strict=True)
    what = {"training": "learned", "ground_truth": "forgotten", "witness": "forgotten, not rehearsed"}
    return [
        {"what": what.get(key[0], key[0]), "": key[1], "name": key[2]}
        | {name: _interval(groups.get(key)) for name, groups in ((first, old), (second, new))}
        for key in {**old, **new}
    ]


def _interval(group: Any) -> str:
    if group is None:
        return ""
    low, high = (f"{100 * value:.1f}" for value in (group.low, group.high))
    return f"{100 * group.change:.1f} % ({low} to {high} %), n = {group.images}"


def _value(measure: Any) -> str:
    return "" if measure is None else f"{measure}, n = {measure.images}"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _by_heading(file: Path) -> dict[str, Image.Image]:
    columns, images = read_samples(file)
    return {column.heading: image for column, image in reversed(list(zip(columns, images, strict=True)))}
